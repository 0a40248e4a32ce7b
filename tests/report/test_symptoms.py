"""What goes wrong in a training: a line for each symptom where it is, none where it is not."""

import dataclasses
import math

import numpy as np
import pytest

from larvseg_jax.evaluation.metrics import SegmentationCounts
from larvseg_jax.report.symptoms import Training, symptoms
from larvseg_jax.vocabulary import Vocabulary

NAMES = ("road", "car", "bicycle", "zebra")
WORDS = Vocabulary(NAMES, base=("road", "car"), novel=("bicycle", "zebra"))
UNSEEN = dataclasses.replace(WORDS, ignore_in_eval=("zebra",))


def summary(predicted, labelled, words=WORDS, **changes):
    hit = np.minimum(predicted, labelled)
    counts = SegmentationCounts(*(np.array(v, np.int64) for v in (hit, predicted, labelled)))
    return dataclasses.replace(counts.summary(NAMES, words), **changes)


GOOD = summary([500, 300, 150, 50], [480, 310, 150, 60])


def stand(step=1000, total=1000, base=(), loss=(), ready=(), name="val"):
    """A history: base mIoU by step, L_seg and readiness by step."""
    lines = [{"step": s, "kind": "train", "masks/L_seg": v, "tags/L_cls": 9.0} for s, v in loss]
    lines += [{"step": s, "kind": "train", "ready/bank": v} for s, v in ready]
    lines += [{"step": s, "kind": "eval", "name": name, "mIoU_base": v} for s, v in base]
    return Training("val", step, total, sorted(lines, key=lambda line: line["step"]))


def test_where_all_is_well_nothing_is_said():
    history = stand(base=[(500, 0.30), (1000, 0.31)], loss=[(500, 1.0), (1000, 0.8)], ready=[(10, 0.2), (1000, 1.0)])
    assert symptoms(GOOD, history) == []
    assert symptoms(GOOD, Training("val", 1000, 1000, [])) == []


@pytest.mark.parametrize("words", [WORDS, UNSEEN])
def test_novel_classes_that_swallow_the_picture(words):
    labelled = [650, 320, 30, 0]
    assert symptoms(summary([600, 280, 110, 10], labelled, words), stand()) == []  # 9 points too many
    (line,) = symptoms(summary([300, 250, 50, 400], labelled, words, base_alone_iou=0.6), stand())
    assert line.startswith("classes known by tags win 45.0 % of the pixels and are 3.0 % of them, most of all 'zebra' ")
    assert "(base mIoU 62.1 %, 60.0 % without them)" in line
    assert "tags.csv" in line
    assert "--novel_offset=choose" in line


def test_base_classes_that_fall_while_their_loss_does():
    loss = [(400, 1.2), (500, 1.0), (900, 0.6), (1000, 0.5)]
    (line,) = symptoms(GOOD, stand(base=[(250, 0.2), (500, 0.3), (1000, 0.25)], loss=loss))
    assert line.startswith("base mIoU fell from 30.0 % at step 500 to 25.0 % while L_seg fell from 1.000 to 0.500: ")


@pytest.mark.parametrize(
    ("base", "loss"),
    [
        ([(500, 0.30), (1000, 0.28)], [(500, 1.0), (1000, 0.5)]),  # hardly
        ([(500, 0.30), (1000, 0.20)], [(500, 0.5), (1000, 0.6)]),  # the loss has risen, too: that is seen anyway
        ([(1000, 0.20)], [(500, 1.0), (1000, 0.5)]),
        ([(500, 0.30), (1000, math.nan)], [(500, 1.0), (1000, 0.5)]),
        ([(500, 0.30), (1000, 0.20)], []),
    ],
)
def test_other_falls_are_none(base, loss):
    assert symptoms(GOOD, stand(base=base, loss=loss)) == []


def test_another_evaluation_is_another_story():
    history = stand(base=[(500, 0.3), (1000, 0.1)], loss=[(500, 1.0), (1000, 0.5)], name="other")
    assert symptoms(GOOD, history) == []


def test_a_bank_that_stays_cold():
    (line,) = symptoms(GOOD, stand(ready=[(10, 0.1), (1000, 0.37)]))
    assert line.startswith("bank is 37.0 % ready at step 1000 of 1000: ")
    assert symptoms(GOOD, stand(step=400, ready=[(400, 0.37)])) == []  # it may yet come
    assert symptoms(GOOD, stand(ready=[(10, 0.1), (1000, 0.95)])) == []


def test_classes_that_are_never_predicted():
    found = summary([690, 310, 0, 0], [600, 300, 60, 40])
    (line,) = symptoms(found, stand())
    assert line.startswith("never predicted: 2 of 4 classes (bicycle, zebra): ")
    assert symptoms(found, stand(step=100)) == []
    assert symptoms(summary([690, 310, 0, 0], [689, 311, 0, 0]), stand()) == []  # not there either
