"""Counts and means against the goldens and against sums written out by hand."""

import json

import numpy as np
import pytest

from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.metrics import SegmentationCounts, iou_of_photo
from larvseg_jax.vocabulary import Vocabulary
from larvseg_jax.vocabulary.base_novel import BaseNovel

NAMES = ("background", "cat", "dog", "cow", "tree", "extras")
VOCABULARY = Vocabulary(
    classes=NAMES,
    base=("cat", "dog"),
    novel=("cow", "tree"),
    background="background",
    ignore_in_eval=("extras",),
)


def counts_of(intersection, predicted, labelled):
    return SegmentationCounts(*(np.array(v, np.int64) for v in (intersection, predicted, labelled)))


@pytest.mark.parametrize("name", ["metrics_s0", "metrics_s1"])
def test_golden(shared, name):
    golden = np.load(shared / "goldens" / "given" / f"{name}.npz")
    meta = json.loads(str(golden["meta"]))
    names = tuple(f"class {i}" for i in range(meta["n_cls"]))
    total = SegmentationCounts.zeros(meta["n_cls"])
    for i in range(meta["n_img"]):
        label = golden[f"label{i}"].astype(np.int32)
        label[label == meta["ignore_index"]] = -1
        photo = SegmentationCounts.zeros(meta["n_cls"]).add(golden[f"pred{i}"].astype(np.int32), label)
        hit, union, predicted, labelled = golden["areas"][i]
        np.testing.assert_array_equal(photo.intersection, hit)
        np.testing.assert_array_equal(photo.predicted, predicted)
        np.testing.assert_array_equal(photo.labelled, labelled)
        np.testing.assert_array_equal(photo.predicted + photo.labelled - photo.intersection, union)
        total = total + photo
    summary = total.summary(names, Vocabulary(names, base=(), novel=()))
    for mine, recorded in (("iou", "iou"), ("acc", "acc"), ("dice", "dice")):
        np.testing.assert_allclose(getattr(summary, mine), golden[recorded], rtol=1e-6)
    assert summary.mean_iou == pytest.approx(float(golden["mIoU"]), rel=1e-6)
    assert summary.mean_acc == pytest.approx(float(golden["mAcc"]), rel=1e-6)
    assert summary.pixel_acc == pytest.approx(float(golden["aAcc"]), rel=1e-6)
    assert round(100 * summary.mean_iou, 2) == pytest.approx(float(golden["mIoU_percent_2dec"]), abs=1e-4)
    assert summary.absent == tuple(names[i] for i in meta["absent_from_both"])
    assert np.isnan([summary.base_iou, summary.novel_iou, summary.harmonic_iou]).all()
    assert not {"aAcc_base", "aAcc_novel"} & summary.scalars().keys()


def test_counts_against_a_loop_over_pixels():
    rng = np.random.default_rng(0)
    pairs = [
        (rng.integers(0, 5, size, dtype=np.int32), rng.integers(-1, 5, size, dtype=np.int32))
        for size in ((7, 9), (4, 3))
    ]
    expected = np.zeros((3, 5), np.int64)
    counts = SegmentationCounts.zeros(5)
    for prediction, label in pairs:
        counts = counts.add(prediction, label)
        for p, g in zip(prediction.ravel(), label.ravel(), strict=True):
            if g >= 0:
                expected[0, g] += p == g
                expected[1, p] += 1
                expected[2, g] += 1
    np.testing.assert_array_equal([counts.intersection, counts.predicted, counts.labelled], expected)


def test_means_leave_out_background_ignored_and_absent():
    #                      background  cat  dog  cow  tree  extras
    counts = counts_of([90, 6, 0, 2, 0, 1], [100, 8, 5, 4, 0, 3], [95, 10, 0, 8, 0, 7])
    summary = counts.summary(NAMES, VOCABULARY)
    assert summary.absent == ("tree",)
    assert summary.base_iou == pytest.approx((6 / 12 + 0) / 2)  # dog: predicted, never labelled
    assert summary.novel_iou == pytest.approx(2 / 10)
    assert summary.mean_iou == pytest.approx((6 / 12 + 0 + 2 / 10) / 3)
    assert summary.background_iou == pytest.approx(90 / 105)
    assert summary.scalars()["aAcc_base"] == pytest.approx(6 / 10)
    assert summary.scalars()["aAcc_novel"] == pytest.approx(2 / 8)
    assert summary.harmonic_iou == pytest.approx(2 / (1 / 0.25 + 1 / 0.2))
    assert summary.mean_acc == pytest.approx((6 / 10 + 2 / 8) / 2)
    assert summary.pixel_acc == pytest.approx((90 + 6 + 2) / (95 + 10 + 8))
    assert summary.groups == ("background", "base", "base", "novel", "novel", "ignored")
    assert summary.scalars()["IoU_background"] == summary.background_iou
    assert "absent: tree" in summary.text()


@pytest.mark.parametrize("pixels", [1, 2, 7])
def test_a_class_that_is_right_everywhere_has_the_score_of_exactly_one(pixels):
    """And one of an empty union has none, however small the other's union is."""
    prediction = np.zeros((1, pixels), np.int32)
    vocabulary = Vocabulary(("cat", "dog"), base=("cat",), novel=("dog",))
    summary = SegmentationCounts.zeros(2).add(prediction, prediction).summary(("cat", "dog"), vocabulary)
    for scores in (summary.iou, summary.acc, summary.dice):
        np.testing.assert_array_equal(scores, [1.0, np.nan])
    assert (summary.mean_iou, summary.base_iou, summary.mean_acc, summary.pixel_acc) == (1.0, 1.0, 1.0, 1.0)
    assert np.isnan([summary.novel_iou, summary.harmonic_iou]).all()
    assert summary.absent == ("dog",)


def test_without_any_labelled_pixel_nothing_has_a_score():
    ignored = np.full((2, 3), -1, np.int32)
    summary = (
        SegmentationCounts.zeros(2)
        .add(np.zeros((2, 3), np.int32), ignored)
        .summary(("cat", "dog"), Vocabulary(("cat", "dog"), base=("cat",), novel=("dog",)))
    )
    assert np.isnan([*summary.iou, *summary.acc, *summary.dice, summary.mean_iou, summary.pixel_acc]).all()
    assert summary.absent == ("cat", "dog")


def test_a_class_of_no_group_counts_in_all_only():
    vocabulary = Vocabulary(("cat", "dog", "sky"), base=("cat",), novel=("dog",))
    summary = counts_of([1, 2, 3], [4, 4, 4], [4, 4, 4]).summary(("cat", "dog", "sky"), vocabulary)
    assert summary.mean_iou == pytest.approx((1 / 7 + 2 / 6 + 3 / 5) / 3)
    assert "IoU_background" not in summary.scalars()


def test_other_definitions_of_base_and_novel():
    counts = counts_of([90, 6, 0, 2, 0, 1], [100, 8, 5, 4, 0, 3], [95, 10, 0, 8, 0, 7])
    definitions = [BaseNovel("1/2", frozenset({"cow"})), BaseNovel("all/0", frozenset(NAMES))]
    summary = counts.summary(NAMES, VOCABULARY, definitions)
    # Background and ignored classes belong to neither; the absent tree is in no mean.
    assert summary.base_novel_iou["1/2"] == pytest.approx((2 / 10, (6 / 12 + 0) / 2))
    assert summary.base_novel_iou["all/0"] == pytest.approx((summary.mean_iou, float("nan")), nan_ok=True)
    assert summary.scalars()["mIoU_novel[1/2]"] == summary.base_novel_iou["1/2"][1]
    assert summary.base_iou == pytest.approx((6 / 12 + 0) / 2)
    assert "mIoU_base[1/2] 20.00" in summary.text()


def test_harmonic_mean_of_zeros_is_zero():
    vocabulary = Vocabulary(("cat", "dog"), base=("cat",), novel=("dog",))
    assert counts_of([0, 0], [4, 4], [4, 4]).summary(("cat", "dog"), vocabulary).harmonic_iou == 0.0


def test_large_counts_are_exact():
    """`Original:` float32 sums lose single pixels beyond 2^24."""
    big = counts_of([2**40], [2**40], [2**40])
    one = np.zeros((1, 1), np.int32)
    assert big.add(one, one).intersection[0] == 2**40 + 1


@pytest.mark.parametrize(
    ("prediction", "label", "culprit"), [(3, 0, "prediction 3"), (0, 3, "label 3"), (0, -2, "label -2")]
)
def test_values_that_are_no_class_are_refused(prediction, label, culprit):
    with pytest.raises(UserError, match=culprit):
        SegmentationCounts.zeros(3).add(np.full((1, 1), prediction, np.int32), np.full((1, 1), label, np.int32))


@pytest.mark.parametrize(("values", "culprit"), [([0, 3, 1], "label 3"), ([2, -2, 1], "label -2")])
def test_the_value_that_is_no_class_is_named_among_those_that_are(values, culprit):
    label = np.array([values], np.int32)
    with pytest.raises(UserError, match=f"{culprit} is none of the 3 classes"):
        SegmentationCounts.zeros(3).add(np.zeros_like(label), label)


def test_the_score_of_a_photo_is_that_of_the_classes_it_shows():
    counts = counts_of([4, 0, 2, 0], [5, 1, 2, 0], [6, 0, 2, 3])  # the second is predicted and not there
    of_all = (4 / 7 + 2 / 2 + 0) / 3
    assert iou_of_photo(counts, np.zeros(4, bool)) == pytest.approx(of_all)
    assert iou_of_photo(counts, np.array([False, False, True, True])) == pytest.approx(4 / 7)
    assert np.isnan(iou_of_photo(counts, np.ones(4, bool)))
