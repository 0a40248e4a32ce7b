"""The oracle test end to end: on a run, a data folder, a prepared data set, and wrong input."""

import dataclasses
import io
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from larvseg_jax.assemble import fresh_state, make_method, state_layout
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.errors import UserError
from larvseg_jax.oracle.cosines import Drawing
from larvseg_jax.oracle.oracle import Subject, oracle_test
from larvseg_jax.oracle.photos import Photos
from larvseg_jax.vocabulary.class_lists import class_list
from larvseg_jax.weights.checkpoint import Checkpoints
from larvseg_jax.weights.record import Record
from tests import tiny
from tests.oracle.test_oracle import plain_counts
from tests.test_cli import assert_refused, command

# "glass" is a base class by processed names only, "sky" by both definitions, the others by none.
ADE = ("lamp", "sky", "glass", "sidewalk", "swivel chair")
DRAWING = Drawing(points=2, repeats=3, seed=4)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Folder with the checkpoint of a run, and photos in `ade` with names from ADE20K, which the run has not."""
    root = tmp_path_factory.mktemp("oracle")
    run, mesh = tiny_run(root), make_mesh(1, 1, jax.devices()[:1])
    state = fresh_state(run, mesh)
    with Checkpoints(root / "run") as checkpoints:
        checkpoints.save(Record.of(run.settings, run.vocabulary.classes, {}, state), state, 2, 0.5)
    rename_classes(tiny.write_data(root))
    return root


def tiny_run(root):
    config = tiny.get_config()
    config.data_root, config.workdir, config.total_steps = str(root), str(root / "run"), 2
    return from_config(config)


def rename_classes(folder):
    (folder / "classes.json").write_text(json.dumps({"names": ADE, "ignore": 255}))
    folder.rename(folder.parent / "ade")


def tiny_photos(root):
    """The validation photos with columns of ADE20K's list."""
    columns = np.array([class_list("ade20k_150").ids.index(name) for name in ADE], np.int32)
    for stem in json.loads((root / "ade" / "splits.json").read_text())["val"]:
        image, mask = (np.array(Image.open(root / "ade" / kind / f"{stem}.png")) for kind in ("images", "masks"))
        yield {"id": stem, "image": image, "label": columns[mask]}


def network(root):
    """The unit patch features as the model's own call gives them."""
    run, mesh = tiny_run(root), make_mesh(1, 1, jax.devices()[:1])
    with Checkpoints(root / "run", read_only=True) as checkpoints:
        params = checkpoints.restore(2, state_layout(run, mesh)).params
    method = make_method(run, mesh)
    forward = jax.jit(lambda images: method.embed(params, images))
    return lambda image: np.asarray(forward(jnp.asarray(image)[None])[0])


@pytest.fixture(scope="module")
def scores(root):
    return scored(root, Photos("ade", "ade20k_150"), novel_only=True).scores


def scored(root, photos, drawing=DRAWING, *, run="run", step=None, limit=0, **options):
    """The oracle test on a run with another data set than its own."""
    subject = Subject(run=root / run, step=step, photos=photos, data_root=root, limit=limit)
    return oracle_test(*subject.open(), drawing, **options)


def test_a_run_is_scored_on_classes_that_it_does_not_know(root, scores):
    ids, embed, photos = class_list("ade20k_150").ids, network(root), list(tiny_photos(root))

    def iou(competing, repeat):
        hit, union, _ = plain_counts(embed, photos, (64, 16), DRAWING, competing, repeat)
        return np.divide(hit, union, out=np.full(150, np.nan), where=union > 0)

    everything = [iou(np.ones(150, bool), repeat) for repeat in range(3)]
    expected = {("all", "all"): [np.nanmean(x) for x in everything]}
    for definition, label in (("processed", "63/87"), ("split", "58/92")):
        novel = np.array([name not in class_list("ade20k_150").base_novel(definition).base for name in ids])
        assert novel[ids.index("glass")] == (definition == "split")
        expected["all", f"base {label}"] = [np.nanmean(x[~novel]) for x in everything]
        expected["all", f"novel {label}"] = [np.nanmean(x[novel]) for x in everything]
        expected[f"novel {label} only", f"novel {label}"] = [np.nanmean(iou(novel, repeat)) for repeat in range(3)]
    assert {(s.pixels, s.classes) for s in scores} == expected.keys()
    for score in scores:
        np.testing.assert_allclose(score.miou, expected[score.pixels, score.classes], atol=2e-3, err_msg=str(score))
    assert len({s.miou for s in scores}) == len(scores)


class Prepared(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """The same photos as a prepared data set."""

    VERSION = tfds.core.Version("1.0.0")
    root: Path

    def _info(self):
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "mask": tfds.features.Image(shape=(None, None, 1), dtype=np.uint16, encoding_format="png"),
            "tags": tfds.features.Sequence(tfds.features.ClassLabel(names=class_list("ade20k_150").ids)),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        return {"val": self._generate_examples()}

    def _generate_examples(self):
        for number, photo in enumerate(tiny_photos(self.root)):
            pictures = {"image": photo["image"], "mask": photo["label"].astype(np.uint16)}
            encoded = {}
            for name, pixels in pictures.items():
                encoded[name] = io.BytesIO()
                Image.fromarray(pixels).save(encoded[name], "PNG")
            yield number, {"id": photo["id"], "tags": [], **{k: v.getvalue() for k, v in encoded.items()}}


def test_a_prepared_data_set_scores_as_the_folder_does(root, scores):
    Prepared.root = root
    builder = Prepared(data_dir=str(root), file_format="array_record")
    builder.download_and_prepare()
    found = scored(root, Photos("prepared/1.0.0", "ade20k_150"))
    assert list(found.scores) == [s for s in scores if s.pixels == "all"]


def test_the_tables_have_mean_and_error(root, capsys):
    found = scored(root, Photos(str(root / "ade"), "ade20k_150"), Drawing(repeats=2), limit=2)
    everything, base, novel = (100 * np.array(s.miou) for s in found.scores[:3])
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if line.startswith("│")]
    assert "base and novel 63/87" in printed
    assert "base and novel 58/92" in printed
    assert "points per class 1, repeats 2, seed 0" in printed
    # With n = 2 the standard error is half of the difference.
    expected = [f"{x.mean():.2f} ± {abs(x[0] - x[1]) / 2:.2f}" for x in (everything, base, novel)]
    gap = base - novel
    assert rows[0] == ["projected", *expected, f"{gap.mean():+.2f} ± {abs(gap[0] - gap[1]) / 2:.2f}"]
    assert [s.classes for s in found.scores] == ["all", "base 63/87", "novel 63/87", "base 58/92", "novel 58/92"]
    unseen = 150 - len(np.unique([k for p in list(tiny_photos(root))[:2] for k in np.unique(p["label"])]))
    assert f"{unseen} of 150 classes of ade20k_150 are in no label" in printed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(class_list="ade150"), r"no class list 'ade150': use one of .*ade20k_150"),
        (dict(workdir="elsewhere"), "elsewhere is no run and no checkpoint: give a folder with checkpoints/ in it"),
        (dict(step=7), r"no checkpoint of step 7: it has \[2\]"),
        (dict(data="nowhere"), "--data=nowhere: .*nowhere does not exist: point --data_root"),
        (dict(split="test"), "no split 'test'"),
        (dict(class_list="voc_20"), "none of its 5 classes"),
    ],
)
def test_wrong_input_is_named(root, changes, message):
    photos = {k: v for k, v in changes.items() if k in ("data", "class_list", "split")}
    with pytest.raises(UserError, match=message):
        scored(
            root,
            Photos(**dict(data="ade", class_list="ade20k_150") | photos),
            run=changes.get("workdir", "run"),
            step=changes.get("step"),
        )


def test_a_class_list_without_novel_classes_has_none_to_score_alone(root):
    features, photos, scale = Subject(run=root / "run", photos=Photos("ade", "ade20k_150"), data_root=root).open()
    photos = dataclasses.replace(photos, definitions=(), called="voc_20")
    with pytest.raises(UserError, match="--novel_only: voc_20 has no novel classes: use ade20k_150"):
        oracle_test(features, photos, scale, DRAWING, novel_only=True)


NEEDED = ["--run=x", "--data=y", "--class_list=ade20k_150"]


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (NEEDED[1:], ["nothing is tested", "--pretrained", "--run"]),
        (NEEDED[:2], ["--class_list"]),
        (["--pretrained=x.npz", *NEEDED[1:]], ["--pretrained=x.npz needs a config"]),
        ([*NEEDED, "--out=page.html"], ["--out=page.html", ".md"]),
        ([*NEEDED, "--points=0"], ["points", "0"]),
        ([*NEEDED, "--seed=-1"], ["seed", "-1"]),
        ([*NEEDED, "--pointz=3"], ["pointz"]),
        (NEEDED, ["x is no run and no checkpoint: give a folder with checkpoints/ in it"]),
    ],
)
def test_wrong_flags_are_answered_in_one_line(flags, parts):
    assert_refused(command("-m", "larvseg_jax.oracle", *flags), *parts)


@pytest.mark.slow
def test_the_command_scores_a_run(root):
    flags = [f"--run={root / 'run'}", "--data=ade", "--class_list=ade20k_150"]
    result = command("-m", "larvseg_jax.oracle", *flags, "--points=2", "--repeats=3", "--seed=4", "--novel_only")
    assert result.returncode == 0, result.stderr
    assert f"step 2 of {root / 'run'}" in result.stdout
    assert "novel only" in result.stdout
