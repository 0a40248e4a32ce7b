"""The exploratory experiment: features of a pretrained backbone block by block, its page and its pictures."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from data_pipelines.transforms import eval_transform
from larvseg_jax import cli
from larvseg_jax.assemble import fresh_state
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.errors import UserError
from larvseg_jax.models.vit import VisionTransformer
from larvseg_jax.oracle import maps
from larvseg_jax.oracle.cosines import Drawing, PixelFeatures
from larvseg_jax.oracle.networks import chosen_blocks
from larvseg_jax.oracle.oracle import Subject, oracle_test
from larvseg_jax.oracle.page import write_page
from larvseg_jax.report.colours import heat_map
from larvseg_jax.weights.checkpoint import Checkpoints
from larvseg_jax.weights.record import Record
from tests import tiny
from tests.oracle.test_oracle import plain_counts, unit

# ml_collections loads config files in a way that Python will drop.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

DRAWING = Drawing(points=1, repeats=3, seed=4)
GROUPS = ("background", "base", "base", "novel", "novel")  # of tiny.NAMES


def config(root):
    found = tiny.get_config()
    found.data_root, found.workdir, found.seed = str(root), str(root / "weights"), 7
    return from_config(found)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A folder with photos, and `weights`, a run of no steps."""
    root = tmp_path_factory.mktemp("exploratory")
    tiny.write_data(root)
    run, mesh = config(root), make_mesh(1, 1, jax.devices()[:1])
    state = fresh_state(run, mesh)
    with Checkpoints(root / "weights") as checkpoints:
        checkpoints.save(Record.of(run.settings, run.vocabulary.classes, {}, state), state, 1, 0.5)
    return root


@pytest.fixture(scope="module")
def subject(root):
    """The weights as those of a backbone: another seed shows whether they are read."""
    run = dataclasses.replace(config(root), pretrained=str(root / "weights"), seed=1)
    return Subject(config=run, blocks="all")


@pytest.fixture(scope="module")
def opened(subject):
    return subject.open()


@pytest.fixture(scope="module")
def found(opened):
    return oracle_test(*opened, DRAWING, novel_only=True)


def photos(root):
    for stem in json.loads((root / "tiny" / "splits.json").read_text())["val"]:
        image, mask = (np.array(Image.open(root / "tiny" / kind / f"{stem}.png")) for kind in ("images", "masks"))
        yield {"id": stem, "image": image, "label": mask.astype(np.int32)}


def network_of(root, depth):
    """A backbone that ends after so many blocks, as a function of one picture."""
    run, mesh = config(root), make_mesh(1, 1, jax.devices()[:1])
    params = fresh_state(run, mesh).params["backbone"]
    later = {f"encoderblock_{i}" for i in range(depth, run.vit.depth)}
    kept = {name: x for name, x in params["Transformer"].items() if name not in later}
    apply = jax.jit(VisionTransformer(dataclasses.replace(run.vit, depth=depth)).apply)
    return lambda image: unit(np.asarray(apply({"params": {**params, "Transformer": kept}}, image[None]).patches[0]))


@pytest.mark.parametrize("depth", [1, 2])
def test_every_block_is_scored_as_a_network_that_ends_there(root, found, depth):
    assert found.features == ("block 1", "block 2")
    scores = {(s.pixels, s.classes): s.miou for s in found.scores if s.features == f"block {depth}"}
    embed, groups = network_of(root, depth), np.array(GROUPS)
    everything, novel = np.ones(5, bool), groups == "novel"
    for repeat in range(DRAWING.repeats):
        for competing, pixels in ((everything, "all"), (novel, "novel only")):
            hit, union, truth = plain_counts(embed, list(photos(root)), (64, 16), DRAWING, competing, repeat)
            iou = np.divide(hit, union, out=np.full(5, np.nan), where=union > 0)
            means = {
                group: np.nanmean(iou[groups == group]) for group in set(GROUPS) if competing[groups == group].any()
            }
            if pixels == "novel only":
                expected = {"novel": means["novel"]}
            else:
                expected = {**means, "all": np.nanmean(iou[1:])}
                of_block = found.class_iou[depth - 1, repeat]
                np.testing.assert_allclose(of_block, iou, atol=2e-3)
            got = {classes: values[repeat] for (of, classes), values in scores.items() if of == pixels}
            assert got.keys() == expected.keys()
            for name in got:
                np.testing.assert_allclose(got[name], expected[name], atol=2e-3, err_msg=f"{pixels}, {name}")
            if pixels == "all":
                np.testing.assert_array_equal(found.labelled, truth)
    assert len(set(scores.values())) == len(scores)


def test_a_run_stands_beside_the_backbone_and_is_drawn_from_the_same_pixels(root, subject, found):
    both = dataclasses.replace(subject, run=root / "weights", blocks="2", limit=2)
    features, labelled, scale = both.open()
    assert features.names == ("block 2", "weights, block 2", "weights, projected")
    assert (labelled.total, scale) == (2, (64, 16))
    scores = oracle_test(features, labelled, scale, DRAWING).scores
    backbone, run, projected = ([s[1:] for s in scores if s.features == name] for name in features.names)
    assert backbone == run != projected


def test_without_blocks_it_is_the_last_one(subject, root):
    features, _, _ = dataclasses.replace(subject, blocks="").open()
    assert features.names == ("block 2",)
    features, labelled, _ = Subject(run=root / "weights", data_root=root).open()
    assert features.names == ("projected",)
    assert (labelled.called, labelled.names) == ("evals.val", tiny.NAMES)  # the run's own evaluation


def test_blocks_are_numbers_from_1_to_the_depth():
    assert chosen_blocks("all", 3) == (1, 2, 3)
    assert chosen_blocks("12,4,8", 12) == (4, 8, 12)
    assert chosen_blocks("", 12) == ()
    for wrong in ("0", "13", "4,x", "some", "-1", "4,,8"):
        with pytest.raises(UserError, match=f"--blocks={wrong}: use all, or some of 1 to 12"):
            chosen_blocks(wrong, 12)


def test_weights_are_asked_for(root):
    with pytest.raises(UserError, match="nothing is tested: give --config=FILE.py with --pretrained=FILE"):
        Subject(config=config(root)).open()


def test_the_page_has_the_numbers(opened, found, tmp_path):
    page = tmp_path / "results.md"
    write_page(found, opened[1], DRAWING, "larvseg oracle --blocks=all", page)
    text = page.read_text()
    assert "Made by `larvseg oracle --blocks=all`, commit " in text
    assert "The first 4 photos of evals.val." in text
    base, novel = (
        100 * np.array(next(s.miou for s in found.scores if s[:3] == ("block 2", "all", of)))
        for of in ("base", "novel")
    )
    cells = [f"{x.mean():.2f} ± {x.std(ddof=1) / 3**0.5:.2f}" for x in (base, novel)]
    gap = base - novel
    (line,) = (line for line in text.splitlines() if line.startswith("| block 2 |"))
    assert line.split(" | ")[2:5] == [*cells, f"{gap.mean():+.2f} ± {gap.std(ddof=1) / 3**0.5:.2f}"]
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith(tuple(f"| {n} |" for n in tiny.NAMES))]
    assert {(row[0][2:], row[1]) for row in rows} == {
        (name, group) for name, group, n in zip(tiny.NAMES, GROUPS, found.labelled, strict=True) if n
    }
    with Image.open(tmp_path / "results.png") as plot:
        assert plot.width > plot.height
    numbers = json.loads((tmp_path / "results.json").read_text())
    assert numbers["drawing"] == {"points": 1, "repeats": 3, "seed": 4}
    assert [tuple(s["miou"]) for s in numbers["scores"]] == [s.miou for s in found.scores]
    assert numbers["classes"][1]["iou"]["block 1"] == found.class_iou[0, :, 1].tolist()


def test_what_is_undefined_is_null(opened, found, tmp_path):
    absent = dataclasses.replace(found, class_iou=np.full_like(found.class_iou, np.nan))
    write_page(absent, opened[1], DRAWING, "", tmp_path / "a.md")
    assert json.loads((tmp_path / "a.json").read_text())["classes"][0]["iou"]["block 1"] == [None] * 3


def test_maps_show_where_the_pixels_were_drawn(root, opened, monkeypatch):
    features, labelled, scale = opened
    monkeypatch.setattr(maps, "_LEAST_SIDE", 1)  # panels of the test scale
    monkeypatch.setattr(maps, "_DOT", 0)
    plain = []
    monkeypatch.setattr(maps, "_with_dots", lambda image, dots: plain.append((image, dots)) or image)
    panels = maps.panels_of(0, features, labelled, scale, DRAWING)
    photo = next(photos(root))
    label = photo["label"][::2, ::2]  # 32 x 36 to 16 x 18
    assert [panel.image.shape for panel in panels] == [(16, 18, 3)] * len(panels)
    shown = sorted(
        np.unique(label).tolist(), key=lambda c: (("novel", "base", "background").index(GROUPS[c]), -(label == c).sum())
    )
    names = [f"{tiny.NAMES[c]} ({GROUPS[c]})" if c else "background" for c in shown]
    assert [panel.caption.split("  ")[0] for panel in panels] == ["photo", "truth", *names]
    patches = features.embed(eval_transform(photo["image"], scale))[-1]
    for column, panel, (_, dots) in zip(shown, panels[2:], plain, strict=True):
        (drawn,) = DRAWING.pixels(label, column, 0, 0)
        assert dots == [(drawn % 18, drawn // 18)]
        every = PixelFeatures.of(patches, (16, 18)).at(np.arange(16 * 18))
        cosines = every @ every[drawn]
        assert panel.caption.endswith(f"  {cosines.min():.2f} to {cosines.max():.2f}")
        stretched = (cosines - cosines.min()) / np.ptp(cosines)
        expected = heat_map(panels[0].image, stretched.reshape(16, 18).astype(np.float32))
        np.testing.assert_allclose(panel.image.astype(int), expected.astype(int), atol=2)


def test_dots_and_captions_are_on_the_sheet():
    grey = np.full((40, 60, 3), 90, np.uint8)
    dotted = maps._with_dots(grey, [(50, 30)])
    assert dotted[30, 50].tolist() == [0, 220, 220]
    assert (dotted != grey).any(-1).sum() < 130
    page = np.asarray(maps.sheet([maps.Panel("one", None, grey), *[maps.Panel("two", (200, 0, 0), dotted)] * 4]))
    assert page.shape[1] == 4 * (60 + maps._SPACE)
    assert page.shape[0] == 2 * (40 + maps._CAPTION + maps._SPACE)
    assert (page[:, : 60 + maps._SPACE] == (200, 0, 0)).all(-1).any()  # the fifth stands below the first


def test_the_command_writes_all_of_it(root, tmp_path, capsys):
    arguments = [
        f"--config={Path(tiny.__file__)}", f"--config.data_root={root}", f"--pretrained={root / 'weights'}",
        "--blocks=1,2", "--repeats=2", "--limit=3", "--photos=2", f"--out={tmp_path / 'found' / 'x.md'}",
        f"--maps={tmp_path / 'maps'}",
    ]  # fmt: skip
    cli.run("oracle", arguments)
    printed = capsys.readouterr().out
    assert "class embeddings: 5 of 5 taken by name" in printed
    assert "block 2" in printed
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == ["x.json", "x.md", "x.png"]
    assert f"larvseg oracle --config={Path(tiny.__file__)} " in (tmp_path / "found" / "x.md").read_text()
    pictures = sorted((tmp_path / "maps").iterdir())
    assert [path.suffix for path in pictures] == [".png", ".png"]
    with Image.open(pictures[0]) as picture:
        assert picture.width > 400


def test_a_mistake_costs_no_loading(root, capsys):
    arguments = [f"--config={Path(tiny.__file__)}", "--pretrained=nowhere.npz"]
    with pytest.raises(SystemExit) as left:
        cli.run("oracle", arguments)
    assert left.value.code == 2
    printed = capsys.readouterr()
    assert "there is no file nowhere.npz" in printed.err
    assert "weights" not in printed.out  # the stage that loads them
