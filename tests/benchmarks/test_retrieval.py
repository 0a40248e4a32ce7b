"""Recall among pairs, counted by hand."""

import numpy as np
import pytest

from benchmarks.retrieval import recalls

PHOTOS = np.eye(3, dtype=np.float32)


def captions(*rows):
    return np.array(rows, np.float32)


def test_recall_by_hand():
    # The second photo's own captions are the third and second nearest to it.
    texts = captions([1, 0, 0], [0.2, 0.5, 0], [0, 0.4, 0.9], [0, 0.8, 0.1])
    found = recalls(PHOTOS, texts, np.array([0, 1, 1, 2]))
    assert found["photo to caption @1"] == pytest.approx(1 / 3)
    assert found["photo to caption @5"] == 1.0
    # Nearest photos of the captions: 0, 1, 2 (wrong), 1 (wrong).
    assert found["caption to photo @1"] == pytest.approx(2 / 4)
    assert found["caption to photo @5"] == 1.0


def test_equal_captions_are_no_success():
    same = captions(*[[1, 1, 1]] * 3)
    found = recalls(PHOTOS, same, np.arange(3))
    assert found["photo to caption @1"] == 0.0
    assert found["caption to photo @1"] == 0.0
