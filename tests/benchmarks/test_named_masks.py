"""Which query has a class's mask and which one names it, by hand."""

import numpy as np
import pytest

from benchmarks import named_masks
from benchmarks.named_masks import of_class

SHOWN = np.zeros((4, 4), bool)
SHOWN[:2] = True  # 8 of 16
MASKS = np.zeros((3, 4, 4), bool)
MASKS[0, :2, :3] = True  # 6 of 8: IoU 0.75
MASKS[1, 1:] = True  # 4 in, 8 out: IoU 4 / 16
LOGITS = np.log([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.9, 0.05, 0.05]])


def test_one_query_has_the_mask_and_another_names_the_class():
    found = of_class(LOGITS, MASKS, SHOWN, 0)  # the third query is most like it and has no mask
    assert (found["found"], found["one query"], found["IoU of namer"], found["right"]) == (1, 0, 0, 1)
    assert found["entropy"] == pytest.approx(1.5 * np.log(2) / np.log(3))
    p = np.array([0.9, 0.05, 0.05])
    assert found["entropy of namer"] == pytest.approx(-(p * np.log(p)).sum() / np.log(3))
    found = of_class(LOGITS, MASKS, SHOWN, 1)
    assert (found["one query"], found["IoU of namer"], found["right"]) == (0, 0.25, 0)


def test_one_query_has_both():
    found = of_class(LOGITS[:2], MASKS[:2], SHOWN, 0)
    assert (found["one query"], found["IoU of namer"], found["right"]) == (1, 0.75, 1)


def test_a_class_without_a_mask_is_counted_and_nothing_else():
    assert of_class(LOGITS, MASKS[:, ::-1], np.eye(4, dtype=bool), 0) == {"found": 0}


def test_masks_of_a_photo_that_does_not_fill_its_window():
    windows = type("Windows", (), dict(window=8, test_size=staticmethod(lambda shape: (4, 8))))()
    mask = np.zeros((1, 4, 4), bool)
    mask[0, 0], mask[0, 2:] = True, True  # its upper row, and what lies below the photo
    pixels = named_masks._of_pixels(mask, (2, 4), windows)
    np.testing.assert_array_equal(pixels, [[[True] * 4, [False] * 4]])


def test_a_run_of_another_method_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        named_masks.main([f"--run={tmp_path}"])
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
