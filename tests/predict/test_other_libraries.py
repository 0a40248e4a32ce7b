"""The snippets of docs/exports.md for other libraries, where these are installed."""

import re
from pathlib import Path

import numpy as np
import pytest

from larvseg_jax import Segmenter
from tests.predict.models import write_model

PAGE = Path(__file__).resolve().parent.parent.parent / "docs/exports.md"


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    file = write_model(tmp_path_factory.mktemp("model") / "m.safetensors", ("background", "cat", "dog", "sofa"))
    return Segmenter.load(file)(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))


def snippet(section):
    """The functions that the first block of code of a section defines."""
    found = {}
    text = re.search(rf"^## {section}\n.*?^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)[1]
    exec(text, found)
    return found


def test_supervision(result):
    pytest.importorskip("supervision", reason="supervision is not installed")
    found = snippet("supervision")["detections"](result)
    assert len(found) == len(np.unique(result.labels))
    for mask, label, name, (x0, y0, x1, y1) in zip(
        found.mask, found.class_id, found.data["class_name"], found.xyxy, strict=True
    ):
        np.testing.assert_array_equal(mask, result.labels == label)
        assert name == result.names[label]
        rows, columns = np.nonzero(mask)
        assert (x0, y0, x1, y1) == (columns.min(), rows.min(), columns.max(), rows.max())


def test_fiftyone(result):
    pytest.importorskip("fiftyone", reason="fiftyone is not installed", exc_type=Exception)
    made = snippet("FiftyOne")
    mask, targets = made["segmentation"](result).mask, made["mask_targets"](result)
    np.testing.assert_array_equal(np.array(["", *result.names])[mask], np.array(result.names)[result.labels])
    assert targets[int(mask[0, 0])] == result.names[result.labels[0, 0]]
