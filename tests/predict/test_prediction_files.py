"""Predictions on paper: colours, tables and names of files; and what a Predictor keeps between its calls."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from larvseg_jax.assemble import state_layout
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.windows import Windows
from larvseg_jax.predict import drawing, files
from larvseg_jax.predict.photos import sizes
from larvseg_jax.predict.predictor import Prediction, Predictor
from larvseg_jax.predict.segmentation import Segmentation
from larvseg_jax.weights.checkpoint import Checkpoints
from larvseg_jax.weights.record import Record
from tests import tiny
from tests.predict.test_prediction import direct_logits

GREY, WHITE = 90, [255, 255, 255]
LINE = 22  # pixels from one line of a legend to the next


def prediction(best, names, second=None):
    """A prediction of given labels; scores and probabilities differ from class to class, second best ones are 0."""
    labels = np.stack([best, np.zeros_like(best) if second is None else second], -1).astype(np.int32)
    scores = np.stack([1 + best / 8, np.zeros(best.shape)], -1).astype(np.float32)
    cut = (np.split(x, [min(3, len(best) // 2)]) for x in (labels, scores, scores / 100))
    strips = [Prediction(names, *parts) for parts in zip(*cut, strict=True)]
    return Segmentation.of(strips, best.shape)


@pytest.fixture
def bands():
    """Four vertical bands: two pixels wide of class 2, then six of class 0, four of class 3, one of class 1."""
    best = np.repeat([2, 0, 3, 1], [2, 6, 4, 1])[None].repeat(10, 0)
    return prediction(best, ("sky", "tree", "lawn", "path"), second=(best + 1) % 4)


def printed(table):
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return [line.split() for line in capture.get().splitlines()]


def test_a_class_has_its_colour_in_the_overlay_beside_its_share_in_the_legend(bands, tmp_path):
    photo = np.full((10, 13, 3), GREY, np.uint8)
    written = files.write(tmp_path / "x.png", "photo.jpg", photo, bands, "runs/a")
    page = np.asarray(Image.open(tmp_path / "x.png")).astype(int)
    assert page.shape == (4 * LINE + 8, 13 + 300, 3)
    shown = []
    for line, column in enumerate((3, 9, 0, 12)):  # inside the bands, the widest first
        swatch = page[4 + line * LINE + LINE // 2, 13 + 16]
        np.testing.assert_allclose(page[5, column], GREY + 0.6 * (swatch - GREY), atol=0.51)
        shown.append(tuple(swatch))
    assert len(set(shown)) == 4
    for edge in (1, 7, 11):
        assert page[5, edge].tolist() == WHITE
    assert (page[10:, :13] == 255).all()  # below the photo
    assert [path.name for path in written] == ["x.png", "x_labels.png", "x_colours.png", "x.json"]
    expected = np.repeat([2, 0, 3, 1], [2, 6, 4, 1])[None].repeat(10, 0)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "x_labels.png")), expected)
    summary = json.loads((tmp_path / "x.json").read_text())
    pixels = {"sky": 6, "path": 4, "lawn": 2, "tree": 1}
    assert list(summary["shares"]) == list(pixels)
    assert summary["shares"] == {name: pytest.approx(count / 13, abs=1e-6) for name, count in pixels.items()}


def test_the_legend_says_the_names_it_shows(bands, tmp_path, monkeypatch):
    texts = []
    monkeypatch.setattr(drawing.ImageDraw.ImageDraw, "text", lambda self, place, text, **_: texts.append(text))
    photo = np.full((10, 13, 3), GREY, np.uint8)
    files.write(tmp_path / "x.png", "photo.jpg", photo, bands, "runs/a")
    assert [text.split() for text in texts] == [
        ["46.2", "%", "sky"],
        ["30.8", "%", "path"],
        ["15.4", "%", "lawn"],
        ["7.7", "%", "tree"],
    ]


def test_the_table_averages_where_a_class_is_best(bands):
    rows = [line for line in printed(files.table(bands)) if "sky" in line or "tree" in line]
    assert [word for word in rows[0] if word[0].isdecimal()] == ["46.15", "1.000", "0.010"]
    assert [word for word in rows[1] if word[0].isdecimal()] == ["7.69", "1.125", "0.011"]


def test_the_table_adds_up_the_classes_it_does_not_show():
    best = np.repeat(np.arange(23), [9] * 20 + [2, 2, 1])[None]
    lines = printed(files.table(prediction(best, tuple(f"c{i}" for i in range(23)))))
    rest = next(line for line in lines if "more" in line)
    assert " ".join(word for word in rest if word not in ("│", "┃")) == f"... and 3 more {100 * 5 / 185:.2f}"


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (dict(scale=(64, 0)), r"scale is \(64, 0\)"),
        (dict(window=16, stride=17), "stride is 17: choose 1 to window = 16"),
        (dict(window=16, stride=0), "stride is 0"),
    ],
)
def test_sizes_that_make_no_windows_are_refused(sizes, message):
    with pytest.raises(UserError, match=message):
        Windows(**sizes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with checkpoints of steps 2 and 3, which differ in gamma; and the parameters of step 2."""
    config = tiny.get_config()
    config.workdir = str(tmp_path_factory.mktemp("run"))
    run, rng = from_config(config), np.random.default_rng(1)
    layout = state_layout(run, make_mesh(1, 8))
    state = jax.tree.map(lambda x: jax.device_put(rng.standard_normal(x.shape).astype(x.dtype), x.sharding), layout)
    record = Record.of(run.settings, run.vocabulary.classes, {}, state)
    states = {}
    with Checkpoints(run.workdir) as checkpoints:
        for step, gamma in ((2, 1.5), (3, 0.5)):
            head = state.params["head"] | {"gamma": jax.numpy.float32(gamma)}
            states[step] = dataclasses.replace(state, params=state.params | {"head": head})
            checkpoints.save(record, states[step], step, None)
    return run, states[2].params


@pytest.fixture
def photo():
    return np.random.default_rng(5).integers(0, 256, (24, 40, 3), dtype=np.uint8)


def test_the_step_asked_for_is_read_and_with_it_the_background(trained, photo, tmp_path):
    run, params = trained
    newest, asked = Predictor.load(run.workdir), Predictor.load(run.workdir, 2)
    assert asked.vocabulary.background == "background"
    logits = direct_logits(run, params, (), photo, asked.windows)
    np.testing.assert_allclose(asked(photo, top_k=1).scores[..., 0], logits.max(-1), atol=2e-5)
    # Of the same weights but for gamma: a third of the scores, after beta.
    beta = float(params["head"]["beta"])
    np.testing.assert_allclose(newest(photo, top_k=1).scores[..., 0] - beta, (logits.max(-1) - beta) / 3, atol=2e-5)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UserError, match="is one file: leave the step 2 out"):
        Predictor.load(tmp_path / "model.safetensors", 2)


def test_a_side_shorter_than_the_window_is_filled_up_as_in_evaluation(trained, photo):
    run, params = trained
    windows = Windows((64, 10), 16, 8)
    found = Predictor.load(run.workdir, 2, windows)(photo, top_k=1)
    expected = direct_logits(run, params, (), photo, windows)
    np.testing.assert_allclose(found.scores[..., 0], expected.max(-1), atol=2e-5)


def test_other_classes_and_their_order_count_from_call_to_call(trained, photo):
    """Of pairs whose scores differ by far more than rounding; red and green, say, do not with these weights."""
    run, params = trained
    predictor = Predictor.load(run.workdir, 2)
    for names in (("red", "grey"), ("grey", "blue"), ("blue", "grey")):
        found, logits = predictor(photo, names, 2), direct_logits(run, params, names, photo, predictor.windows)
        assert found.names == names
        np.testing.assert_allclose(found.scores, -np.sort(-logits, -1), atol=2e-5)
        clear = np.abs(logits[..., 0] - logits[..., 1]) > 1e-4
        np.testing.assert_array_equal(found.labels[clear, 0], logits.argmax(-1)[clear])


def test_the_memory_told_is_kept_and_suffices(trained, photo):
    predictor = Predictor.load(trained[0].workdir, 2, Windows((512, 64), 16, 16))
    size = (24, 200)
    peak = predictor.peak_memory(size)
    assert predictor.peak_memory(size, memory=peak) == peak
    assert predictor.peak_memory(size, memory=peak - 1) < peak
    assert predictor.peak_memory(size, probabilities=True) > peak


def test_the_memory_told_has_room_for_the_network(trained):
    """The hidden layer of an MLP alone: 32 float32 for each of 32 x 32 patches, and not of 4 x 4."""
    small, large = (
        Predictor.load(trained[0].workdir, 2, Windows((side, side), window=0)).peak_memory((8, 8)) for side in (16, 128)
    )
    assert large - small > (32 * 32 - 4 * 4) * 32 * 4


def test_the_weights_take_the_parameters_and_the_table_of_the_classes_that_compete(trained, photo):
    run, params = trained
    predictor = Predictor.load(run.workdir, 2)
    alone = sum(np.size(x) for x in jax.tree.leaves(params)) - (16 - len(tiny.NAMES)) * 16  # rows without a class
    predictor(photo, ("red", "green", "grey"), 1)
    common = 16  # of the vectors, taken off each
    assert predictor.weight_bytes == 4 * (alone + 3 * 16 + common + 16 * 16 + 3 + 2)


@pytest.mark.parametrize("kind", ["png", "bmp"])
def test_the_size_of_a_large_file_is_told_by_its_head(tmp_path, kind):
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    Image.fromarray(noise).save(photo := tmp_path / f"a.{kind}")
    assert photo.stat().st_size > 2 << 16
    assert list(sizes([photo, tmp_path / "none.png"], 178)) == [(200, 300)]
    assert list(sizes([photo], 0)) == []
