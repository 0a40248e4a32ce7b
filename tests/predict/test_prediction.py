"""Predictor and its command line: against evaluation's label maps and NumPy, from runs and exported files."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image

from data_pipelines import transforms
from larvseg_jax import cli
from larvseg_jax.assemble import make_method, state_layout
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.evaluator import make_patch_values
from larvseg_jax.evaluation.windows import Windows
from larvseg_jax.predict import files
from larvseg_jax.predict.predictor import Prediction, Predictor
from larvseg_jax.predict.segmentation import Segmentation
from larvseg_jax.predict.segmenter import Segmenter
from larvseg_jax.weights.checkpoint import Checkpoints
from larvseg_jax.weights.places import stated_classes
from larvseg_jax.weights.record import Record
from larvseg_jax.weights.safetensors_file import ModelMetadata, SavedModel, arrays_by_path, save_safetensors
from tests import tiny

GREY_RED = ("grey", "red", "green")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run with one checkpoint of random weights; its data does not exist."""
    folder = tmp_path_factory.mktemp("run")
    config = tiny.get_config()
    config.workdir = str(folder)
    run = from_config(config)
    rng = np.random.default_rng(0)
    state = jax.tree.map(
        lambda x: jax.device_put(np.asarray(rng.standard_normal(x.shape)).astype(x.dtype), x.sharding),
        state_layout(run, make_mesh(1, 8)),
    )
    state.params["head"]["gamma"] = jax.numpy.float32(1.3)
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(Record.of(run.settings, run.vocabulary.classes, {}, state), state, 3, 0.1)
    return folder, run, state.params


@pytest.fixture(scope="module")
def predictor(run_folder):
    return Predictor.load(run_folder[0])


@pytest.fixture
def photo():
    image = np.random.default_rng(5).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(image).resize((53, 37), Image.Resampling.BICUBIC))


def patch_scores(run, params, names, images):
    """What evaluation's network says of normalised pictures."""
    mesh = make_mesh(1, 8)
    scorer = make_method(run, mesh).scorer(run.vocabulary.label_set(names))
    return np.asarray(make_patch_values(scorer.scores, mesh)(params, None, images), np.float64)


def direct_logits(run, params, names, image, windows):
    """All classes at all pixels: evaluation's windows and network, upsampled by its matrices at once."""
    patches = patch_scores(run, params, names, windows.cut(image))
    test_size = windows.test_size(image.shape)
    window_rows, rows, columns = windows.stitching(patches.shape[1:3], test_size, image.shape[:2])
    n, h, w, k = patches.shape
    mosaic = patches.reshape(window_rows, -1, h, w, k).transpose(0, 2, 1, 3, 4).reshape(window_rows * h, -1, k)
    return np.einsum("Hp,pqn,Wq->HWn", rows, mosaic, columns)


@pytest.mark.slow
@pytest.mark.parametrize("names", [None, GREY_RED])
@pytest.mark.parametrize("windows", [Windows((64, 16), 16, 8), Windows((64, 30), 16, 16)], ids=str)
def test_prediction_equals_the_whole_map(run_folder, photo, names, windows):
    folder, run, params = run_folder
    found = Predictor.load(folder, windows=windows)(photo, names, top_k=3, probabilities=True)
    logits = direct_logits(run, params, names or (), photo, windows)
    order = np.argsort(-logits, axis=-1, kind="stable")[..., :3]
    ranked = np.take_along_axis(logits, order, -1)
    assert found.names == (names or tiny.NAMES)
    np.testing.assert_allclose(found.scores, ranked, atol=2e-5)
    clear = np.diff(-ranked[..., :2])[..., 0] > 1e-4
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(found.labels[clear, 0], order[clear, 0])
    softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(found.probabilities, np.take_along_axis(softmax, order, -1), atol=2e-5)


def test_windows_are_those_of_the_runs_evaluation(predictor):
    assert predictor.windows == Windows((64, 16), 16, 8)


@pytest.mark.parametrize("size", [(32, 48), (37, 53)])
def test_whole_photo_at_once(run_folder, photo, size):
    """Without windows: the network on the resized photo, filled up to whole patches, as it is."""
    folder, run, params = run_folder
    image = photo[: size[0], : size[1]]
    found = Predictor.load(folder, windows=Windows((64, 30), window=0))(image, top_k=1)
    pixels = transforms.eval_transform(image, (64, 30))
    h, w = pixels.shape[:2]
    filled = np.pad(pixels, ((0, -h % 4), (0, -w % 4), (0, 0)))[None]
    logits = patch_scores(run, params, (), filled)[0]

    def linear(n_patches, length, out):
        """Patches to the padded side, cut to the side, then to the photo's: as np.interp does it."""

        def to(n_in, n_out):
            centres = (np.arange(n_out) + 0.5) * n_in / n_out - 0.5
            return np.stack([np.interp(centres, np.arange(n_in), row) for row in np.eye(n_in)], -1)

        return to(length, out) @ to(n_patches, n_patches * 4)[:length]  # fmt: skip

    a, b = linear(logits.shape[0], h, size[0]), linear(logits.shape[1], w, size[1])
    expected = np.einsum("Hp,pqn,Wq->HWn", a, logits, b)
    np.testing.assert_allclose(found.scores[..., 0], expected.max(-1), atol=2e-5)
    assert (found.labels[..., 0] == expected.argmax(-1)).mean() > 0.99


def test_exported_file_predicts_as_its_run(run_folder, predictor, photo, tmp_path):
    folder, run, params = run_folder
    params = jax.tree.map(np.asarray, params)
    params["head"]["class_embeddings"] = params["head"]["class_embeddings"][: len(tiny.NAMES)]
    vocabulary = run.vocabulary
    metadata = ModelMetadata(vocabulary.classes, vocabulary.base, vocabulary.novel, vocabulary.background,
                             "here", 3, run.settings, {})  # fmt: skip
    save_safetensors(tmp_path / "model.safetensors", SavedModel(arrays_by_path(params), {}, metadata))
    again = Predictor.load(tmp_path / "model.safetensors")
    first, second = predictor(photo), again(photo)
    assert again.vocabulary.novel == tiny.NOVEL
    for where in (folder, folder / "checkpoints" / "3", tmp_path / "model.safetensors"):
        assert stated_classes(where)[0].classes == tiny.NAMES
    for of in (predictor, again):  # base and novel survive loading
        assert (Segmenter(of).base, Segmenter(of).novel) == (tiny.BASE, tiny.NOVEL)
        assert of.vocabulary.groups(("blue", "red", "background")) == ("novel", "base", "background")
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.scores, second.scores)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(classes=("red", "gren")), "class 'gren' is not in the vocabulary: did you mean green"),
        (dict(classes=("red",)), "1 class competes"),
        (dict(classes=("red", "red")), "1 class competes"),
        (dict(top_k=6), "top_k is 6: choose 1 to 5"),
        (dict(top_k=0), "top_k is 0: choose 1 to 5"),
        (dict(memory=1000), "the budget is"),
    ],
)
def test_bad_requests_are_told_in_one_line(predictor, photo, options, message):
    with pytest.raises(UserError, match=message) as caught:
        predictor(photo, **options)
    assert "\n" not in str(caught.value)


def test_fewer_classes_than_are_shown_by_default_need_no_option(predictor, photo):
    assert predictor(photo).labels.shape[-1] == 5
    few = predictor(photo, classes=("red", "green"))
    assert few.labels.shape[-1] == 2
    assert predictor.peak_memory(photo.shape[:2], classes=("red", "green")) > 0


def test_diverged_weights_are_refused(predictor, photo):
    trained = predictor.trained
    head = {**trained.params["head"], "proj_patch": jax.numpy.full_like(trained.params["head"]["proj_patch"], np.nan)}
    broken = dataclasses.replace(trained, params={**trained.params, "head": head})
    with pytest.raises(UserError, match="not finite"):
        Predictor(broken)(photo)


def test_without_an_evaluation_of_its_own_photos_are_cut_as_in_the_original(predictor):
    settings = {name: section for name, section in predictor.trained.settings.items() if name != "evals"}
    assert Predictor(dataclasses.replace(predictor.trained, settings=settings)).windows == Windows(
        (2048, 512), 512, 512
    )


def test_command_writes_overlay_labels_and_names(run_folder, predictor, photo, tmp_path, capsys):
    for name in ("a.png", "b.png"):
        Image.fromarray(photo).save(tmp_path / name)
    out = tmp_path / "out"
    classes = ",".join(GREY_RED)
    cli.run(
        "predict",
        [f"--run={run_folder[0]}", f"--image={tmp_path}", f"--classes={classes}", f"--out={out}"],
    )
    printed = capsys.readouterr().out
    assert "peak memory: at most" in printed
    expected = predictor(photo, GREY_RED, 2)
    for name in ("a", "b"):
        labels = np.asarray(Image.open(out / f"{name}_labels.png"))
        assert labels.dtype == np.uint16
        np.testing.assert_array_equal(labels, expected.labels[..., 0])
        summary = json.loads((out / f"{name}.json").read_text())
        assert summary["names"] == list(GREY_RED)
        counts = np.bincount(expected.labels[..., 0].ravel(), minlength=3) / expected.labels[..., 0].size
        assert summary["shares"] == {GREY_RED[i]: pytest.approx(counts[i], abs=1e-6) for i in np.flatnonzero(counts)}
        assert np.asarray(Image.open(out / f"{name}.png")).shape == (max(37, 22 * len(summary["shares"]) + 8), 353, 3)
        for i in np.flatnonzero(counts):
            assert GREY_RED[i] in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image={photo}", "--run={folder}/none"], "is no run and no checkpoint"),
        (["--image={folder}/none.jpg", "--run={folder}"], "there is no picture"),
        (["--image={empty}", "--run={folder}"], "has no pictures"),
        (["--image={text}", "--run={folder}"], "no readable picture"),
        (["--image={photo}", "--run={folder}", "--classes=red,blu"], "did you mean blue"),
        (["--image={photo}", "--run={folder}", "--memory_gb=0.001"], "give more memory"),
        (["--image={photo}", "--run={folder}", "--out={photo}"], "would be overwritten"),
        (["--image", "{photo}", "{text}", "--run={folder}", "--out=x.png"], "is one file for 2 photos"),
        (["--image={photo}", "--run={folder}", "--out={text}"], "t.png is there and is no prediction"),
        (["--image={photo}", "--run={folder}", "--out={text}/x"], "cannot write to"),
        (["--image={photo}", "--run={folder}", "--max_megapixels=0"], "use 1 or more"),
        (["--run={folder}"], "there is no photo"),
    ],
)
def test_command_tells_mistakes_in_one_line(run_folder, photo, tmp_path, capsys, arguments, message):
    places = dict(folder=run_folder[0], photo=tmp_path / "p.png", text=tmp_path / "t.png", empty=tmp_path / "empty")
    Image.fromarray(photo).save(places["photo"])
    places["text"].write_text("no picture")
    places["empty"].mkdir()
    with pytest.raises(SystemExit) as left:
        cli.run("predict", [a.format(**places) for a in arguments])
    assert left.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]


def test_shares_and_legend_of_many_classes(photo):
    labels = (np.arange(37 * 53, dtype=np.int32).reshape(37, 53, 1) % 40) // 2 + 60_000
    found = Prediction(tuple(f"class {i}" for i in range(60_020)), labels, np.zeros(labels.shape, np.float32), None)
    segmentation = Segmentation.of([found], (37, 53))
    shares = segmentation.shares()
    assert [label for label, _ in shares[:2]] == [60_000, 60_001]
    assert sum(share for _, share in shares) == pytest.approx(1)
    assert files.table(segmentation).row_count == 20
