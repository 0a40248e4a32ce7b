"""Photos whose classes are looked for in strips: the same classes, in a memory that does not grow with the photo."""

import json

import numpy as np
import pytest
from PIL import Image

from larvseg_jax import cli
from larvseg_jax.evaluation.search_memory import TooLittleMemoryError
from larvseg_jax.predict import drawing, files, predictor
from larvseg_jax.predict.predictor import Prediction, Predictor
from larvseg_jax.predict.segmentation import Segmentation
from tests.predict.models import write_model

NAMES = tuple(f"class {i}" for i in range(7))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "m.safetensors", NAMES)


@pytest.fixture
def photo():
    image = np.random.default_rng(5).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(image).resize((310, 230), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("probabilities", [False, True])
def test_strips_are_the_whole_cut_into_pieces(model, photo, monkeypatch, probabilities):
    tool = Predictor.load(model)
    whole = tool(photo, top_k=3, probabilities=probabilities)
    monkeypatch.setattr(predictor, "_STRIP", 310 * 28 * 40)  # bytes: about 40 rows
    strips = list(tool.strips(photo, top_k=3, probabilities=probabilities))
    assert len(strips) > 3
    for field in ("labels", "scores", "probabilities"):
        parts = [getattr(strip, field) for strip in strips]
        if field == "probabilities" and not probabilities:
            assert parts == [None] * len(strips)
        else:
            np.testing.assert_allclose(np.concatenate(parts), getattr(whole, field), atol=1e-6)


def test_figures_of_classes_are_those_of_the_whole(photo):
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 6, (230, 310, 2)).astype(np.int32)
    scores, chances = rng.standard_normal((2, 230, 310, 2)).astype(np.float32)
    cuts = [100, 101, 170]
    parts = zip(*(np.split(x, cuts) for x in (labels, scores, chances)), strict=True)
    found = Segmentation.of((Prediction(NAMES, *part) for part in parts), (230, 310))
    np.testing.assert_array_equal(found.labels, labels[..., 0])
    for i in range(6):
        there = labels[..., 0] == i
        assert found.pixels[i] == there.sum()
        assert found.mean_scores[i] == pytest.approx(scores[there, 0].mean(), abs=1e-5)
        assert found.mean_probabilities[i] == pytest.approx(chances[there, 0].mean(), abs=1e-5)
    assert found.pixels[6] == 0
    assert np.isnan(found.mean_scores[6])
    assert {label for label, _ in found.shares()} == set(range(6))


def test_the_memory_of_strips_does_not_grow_with_the_height(model):
    tool = Predictor.load(model)
    sizes = [(2_000, 1_500), (20_000, 15_000 // 10), (8_000, 6_000), (178_000_000 // 13_000, 13_000)]
    whole = [tool.peak_memory(size, memory=1 << 40) for size in sizes]
    strips = [tool.peak_memory(size, memory=3 << 29, strips=True) for size in sizes]
    assert whole[-1] > 6 << 30  # 40 bytes for each of 178 million pixels
    assert max(strips) < 1 << 30
    with pytest.raises(TooLittleMemoryError, match="give more memory"):
        tool.peak_memory(sizes[-1])


def test_a_large_overlay_is_scaled_down_and_the_label_map_is_not(model, photo, tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "_PIXELS", 230 * 310 // 4)
    monkeypatch.setattr(drawing, "_ROWS", 50)
    monkeypatch.setattr(drawing, "_NAMED_SHARE", 2.0)  # no names, which are black on white
    Image.fromarray(photo).save(tmp_path / "a.png")
    cli.run("predict", [f"--run={model}", f"--image={tmp_path / 'a.png'}", f"--out={tmp_path / 'out'}"])
    with Image.open(tmp_path / "out" / "a.png") as page:
        assert page.width == 155 + 300
        assert page.height >= 115
        shown = np.asarray(page)[:115, :155].astype(int)
    labels = np.asarray(Image.open(tmp_path / "out" / "a_labels.png"))
    np.testing.assert_array_equal(labels, Predictor.load(model)(photo).labels[..., 0])
    assert json.loads((tmp_path / "out" / "a.json").read_text())["names"] == list(NAMES)
    small = photo.astype(int).reshape(115, 2, 155, 2, 3).mean((1, 3))
    white = (shown == 255).all(-1)  # edges
    coloured = 2.5 * (shown - 0.4 * small)[~white] / 1.5  # the colours below 60 % of opacity
    distinct = np.unique(coloured.round(-1), axis=0)
    assert len(distinct) < 60


def test_an_overlay_painted_in_parts_is_that_of_the_whole(photo, tmp_path, monkeypatch):
    labels = np.random.default_rng(1).integers(0, 3, (23, 31, 1)).astype(np.int32).repeat(10, 0).repeat(10, 1)
    found = Segmentation.of([Prediction(NAMES, labels, np.zeros(labels.shape, np.float32), None)], (230, 310))
    pages = []
    for rows in (1000, 37):
        monkeypatch.setattr(drawing, "_ROWS", rows)
        files.write(tmp_path / "x.png", "", photo, found, "")
        pages.append(np.asarray(Image.open(tmp_path / "x.png")))
    np.testing.assert_array_equal(*pages)
