"""Segmenter, as people call it: what it takes, what it says, how often it compiles, and what of it starts JAX."""

import json
import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

import larvseg_jax
from larvseg_jax import cli
from larvseg_jax.errors import UserError
from larvseg_jax.predict.predictor import Predictor
from larvseg_jax.weights import places
from tests.predict.models import write_model
from tests.predict.test_regions import decoded

NAMES = ("cat", "sky", "dog", "sofa", "fish, salmon")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    file = tmp_path_factory.mktemp("model") / "m.safetensors"
    return write_model(file, NAMES, ("dog", "sofa"), "sky", [["puppy", "dog"]])


@pytest.fixture(scope="module")
def model(file):
    return larvseg_jax.Segmenter.load(str(file))


def noise(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def result(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "a [1] <b>.png"
    Image.fromarray(noise(40, 60)).save(path)
    return model(path, top_k=3, probabilities=True)


def test_a_result_has_the_best_classes_of_the_predictor(result, file):
    expected = Predictor.load(file)(noise(40, 60), top_k=3, probabilities=True)
    assert result.names == NAMES
    np.testing.assert_array_equal(result.labels, expected.labels[..., 0])
    np.testing.assert_array_equal(result.top_labels, expected.labels)
    np.testing.assert_allclose(result.scores, expected.scores, atol=1e-6)
    np.testing.assert_allclose(result.probabilities, expected.probabilities, atol=1e-6)
    np.testing.assert_array_equal(result.image, noise(40, 60))


def test_base_and_novel_are_those_of_the_model(model, result):
    groups = dict(zip(NAMES, ("base", "background", "novel", "novel", "base"), strict=True))
    assert (model.classes, model.base, model.novel) == (NAMES, ("cat", "fish, salmon"), ("dog", "sofa"))
    assert dict(zip(result.names, result.groups, strict=True)) == groups
    assert all(segment.group == groups[segment.name] for segment in result.segments)


def test_segments_make_up_the_label_map(result):
    left = np.full(result.size, -1)
    for segment in result.segments:
        mask = decoded(segment.rle["counts"], result.size) == 1
        left[mask] = segment.label
        assert segment.name == NAMES[segment.label]
        assert segment.score == pytest.approx(result.scores[mask, 0].mean(), abs=1e-5)
        assert segment.share == pytest.approx(mask.mean())
    np.testing.assert_array_equal(left, result.labels)
    assert sum(segment.share for segment in result.segments) == pytest.approx(1)


def test_what_is_no_model_is_said():
    with pytest.raises(UserError, match="is no run and no checkpoint"):
        larvseg_jax.Segmenter.load("plants")


def test_the_classes_of_a_file_are_known_without_loading_it(file, tmp_path):
    stated, _ = places.stated_classes(file)
    assert (stated.classes, stated.aliases) == (NAMES, (("puppy", "dog"),))
    header = b'{"__metadata__": {"classes": %s}}'
    for content in (b"", b"x" * 40, header % b"7", header % b'"[1]"', header % b'"[\\"a\\", \\"a\\"]"', b"[" * 100_000):
        bad = tmp_path / "bad.safetensors"
        bad.write_bytes(len(content).to_bytes(8, "little") + content)
        assert places.stated_classes(bad) is None
    assert places.stated_classes(tmp_path) is None


@pytest.mark.parametrize("aliases", [[["puppy"]], [7], 7, {"puppy": "dog"}], ids=str)
def test_aliases_that_are_no_pairs_are_told_when_the_file_is_loaded(tmp_path, aliases):
    file = write_model(tmp_path / "m.safetensors", NAMES, aliases=aliases)
    assert places.stated_classes(file) is None
    with pytest.raises(UserError, match="aliases are no pairs of names"):
        larvseg_jax.Segmenter.load(file)


def test_classes_are_named_in_one_way_everywhere(model):
    photo = noise(40, 60)
    for classes in (["dog", "fish, salmon"], ("dog", "fish, salmon", "dog"), ["dog ", "fish, salmon"]):
        assert model(photo, classes).names == ("dog", "fish, salmon")
    assert model(photo, classes="cat,dog").names == ("cat", "dog")
    assert model(photo, exclude="cat,dog").names == ("sky", "sofa", "fish, salmon")
    assert model(photo, ["dog", "cat", "sky"], exclude=["cat"]).names == ("dog", "sky")
    assert model(photo, ["puppy", "sofa"]).names == ("dog", "sofa")
    for classes, message in (
        (["cat", "dgo"], "'dgo' is not in the vocabulary: did you mean dog"),
        (["cat"], "1 class"),
    ):
        with pytest.raises(UserError, match=message):
            model(photo, classes)


def test_a_list_gives_a_list(model, result):
    results = model([noise(40, 60), Image.fromarray(noise(40, 60)), result.source])
    assert [type(one).__name__ for one in results] == ["Result"] * 3
    for one in results:
        np.testing.assert_array_equal(one.labels, result.labels)
        assert one.top_labels.shape == (40, 60, 1)
    assert model([]) == []


def test_what_is_seen_too_small_is_told(model):
    with pytest.warns(UserWarning, match=r"a picture is 900 x 60 pixels and is seen at 64 x 4, under 2 patches of 8"):
        model(noise(60, 900))


def test_a_result_tells_its_story(result):
    share = 100 * (result.labels == result.segments[0].label).mean()
    name = max(NAMES, key=lambda name: (result.labels == NAMES.index(name)).sum())
    group = result.groups[NAMES.index(name)]
    share = 100 * (result.labels == NAMES.index(name)).mean()
    assert f"60 x 40 pixels, {len(np.unique(result.labels))} of 5 classes: {name} {share:.1f} % ({group})" in repr(
        result
    )
    page = result._repr_html_()
    assert "data:image/png;base64," in page
    assert "a [1] &lt;b&gt;.png" in page


def test_a_result_is_saved_as_the_command_does(result, file, tmp_path):
    written = result.save(tmp_path / "here" / "x.png", formats=["coco"], show=["cat"])
    assert [path.name for path in written] == ["x.png", "x_labels.png", "x_colours.png", "x.json", "x_coco.json"]
    np.testing.assert_array_equal(np.asarray(Image.open(written[1])), result.labels)
    assert json.loads(written[4].read_text())["annotations"] == json.loads(json.dumps(result.to_coco()))["annotations"]
    summary = json.loads(written[3].read_text())
    assert [s["pixels"] for s in summary["segments"]] == [s.pixels for s in result.segments]
    result.save(tmp_path / "here" / "x.png")  # replaces all that it wrote before
    assert sorted(p.name for p in (tmp_path / "here").iterdir()) == sorted(path.name for path in written[:4])
    (tmp_path / "y.png").write_text("mine")
    with pytest.raises(UserError, match="is there and is no prediction"):
        result.save(tmp_path / "y.png")
    with pytest.raises(UserError, match="show: class 'horse' is not in the vocabulary"):
        result.overlay(["horse"])


@pytest.fixture
def compiled():
    """Number of programs compiled so far, or read from disk; a list of one."""
    count = [0]

    def hear(name, _seconds, **_):
        count[0] += name == "/jax/core/compile/backend_compile_duration"

    jax.monitoring.register_event_duration_secs_listener(hear)
    yield count
    jax.monitoring.unregister_event_duration_listener(hear)


SIZES = ((40, 60), (41, 60), (40, 61), (44, 58), (37, 63), (42, 64), (38, 57), (43, 62), (39, 59), (45, 64))


def test_photos_of_ten_sizes_share_their_programs(file, compiled):
    model = larvseg_jax.Segmenter.load(file)
    model(noise(*SIZES[0]))
    first = compiled[0]
    for size in SIZES[1:]:
        model(noise(*size))
    assert (
        compiled[0] - first <= 4
    )  # one of these photos needs another search, whose three arrays are placed by programs
    model(noise(*SIZES[0]), classes=["cat", "dog"])
    assert model._predictor._embed._cache_size() == 1  # other class vectors, but not another network


def test_nothing_is_loaded_before_it_is_asked_for(file, tmp_path):
    """In a process of its own: the package, and the command with a wrong class, answer without JAX."""
    Image.fromarray(noise(40, 60)).save(tmp_path / "a.png")
    script = f"""
import sys
from pathlib import Path
import larvseg_jax
assert "jax" not in sys.modules
from larvseg_jax import cli
try:
    cli.run("predict", ["--model={file}", "{tmp_path / "a.png"}", "--classes=cat,dgo", "--out={tmp_path / "out"}"])
except SystemExit as left:
    assert left.code == 2
assert "jax" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == ["error: classes: class 'dgo' is not in the vocabulary: did you mean dog?"]


def test_programs_are_kept_also_where_jax_was_imported_first(monkeypatch, tmp_path):
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        assert larvseg_jax.Segmenter is not None
        assert jax.config.jax_compilation_cache_dir == os.environ["JAX_COMPILATION_CACHE_DIR"]
        assert jax.config.jax_compilation_cache_dir.startswith(str(tmp_path))
        jax.config.update("jax_compilation_cache_dir", "mine")
        assert larvseg_jax.Segmenter is not None
        assert jax.config.jax_compilation_cache_dir == "mine"
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    with pytest.raises(AttributeError, match="Segmentor"):
        _ = larvseg_jax.Segmentor


def command(file, *arguments, capsys):
    code = 0
    try:
        cli.run("predict", [f"--model={file}", *map(str, arguments)])
    except SystemExit as left:
        code = left.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err.splitlines()


def test_the_command_goes_into_folders_and_writes_what_it_is_asked(file, tmp_path, capsys):
    photos = tmp_path / "photos"
    (photos / "2024" / "may").mkdir(parents=True)
    Image.fromarray(noise(40, 60)).save(photos / "a.png")
    Image.fromarray(noise(40, 60, 1)).save(photos / "2024" / "b.ppm")
    Image.fromarray(noise(40, 60, 2)).save(photos / "2024" / "may" / "c.jfif", "JPEG")
    (photos / "2024" / "back").symlink_to(photos)  # a circle
    (photos / "2024" / "broken.gif").write_text("x")
    out = photos / "found"
    for _ in range(2):  # the second time there are predictions in the folder
        code, printed, errors = command(
            file, photos, "--format=coco,labelstudio", "--format=polygons", "--show=cat", f"--out={out}", capsys=capsys
        )
        assert code == 2
        assert len(errors) == 1
        assert errors[0].startswith(f"error: {photos / '2024' / 'broken.gif'}: no readable picture")
        assert "predicted: 3 of 4" in printed
        parts = ("", "_labels", "_colours")
        pictures = {f"{stem}{part}.png" for stem in "abc" for part in parts}
        texts = {f"{stem}{part}.json" for stem in "abc" for part in ("", "_coco", "_labelstudio", "_polygons")}
        assert {path.name for path in out.iterdir()} == pictures | texts
    assert (
        json.loads((out / "a.json").read_text())["groups"].items()
        <= dict(cat="base", sky="background", dog="novel", sofa="novel", **{"fish, salmon": "base"}).items()
    )


def test_several_photos_by_flags_and_one_that_is_seen_too_small(file, tmp_path, capsys):
    Image.fromarray(noise(40, 60)).save(tmp_path / "a.png")
    Image.fromarray(noise(60, 900)).save(tmp_path / "b.png")
    flags = [f"--image={tmp_path / name}.png" for name in "ab"]
    code, printed, errors = command(file, *flags, f"--out={tmp_path / 'out'}", capsys=capsys)
    assert (code, errors) == (0, [])
    warned = [line for line in printed.splitlines() if line.startswith("warning: ")]
    assert len(warned) == 1
    assert re.search(r"b.png is 900 x 60 pixels and is seen at 64 x 4, under 2 patches of 8: cut it", warned[0])
    assert (tmp_path / "out" / "a.json").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--classes=cat,dgo"], "classes: class 'dgo' is not in the vocabulary: did you mean dog?"),
        (["--classes=cat"], "1 class competes: scores are relative"),
        (["--classes=cat,dog", "--show=sky"], "show: class 'sky' is not in the vocabulary"),
    ],
)
def test_wrong_classes_are_answered_before_the_model_is_read(file, tmp_path, capsys, monkeypatch, flags, message):
    monkeypatch.setattr("larvseg_jax.predict.predict.load_trained", None)
    Image.fromarray(noise(40, 60)).save(tmp_path / "a.png")
    code, _, errors = command(file, tmp_path / "a.png", *flags, capsys=capsys)
    assert code == 2
    assert len(errors) == 1
    assert message in errors[0]
