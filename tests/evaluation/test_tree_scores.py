"""Scores by a hierarchy from a confusion matrix, against loops over pixels."""

import numpy as np
import pytest

from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.metrics import SegmentationCounts
from larvseg_jax.evaluation.open_scores import OpenCounts
from larvseg_jax.evaluation.path_similarity import PathSimilarity
from larvseg_jax.evaluation.tree_scores import TreeCounts, cut_scores, tree_credit
from larvseg_jax.vocabulary import IGNORE_LABEL, Vocabulary
from larvseg_jax.vocabulary.hierarchy import wordnet
from larvseg_jax.vocabulary.levels import ClassTree

NAMES = ("dog", "wolf", "cat", "car", "bicycle", "background")
NOUNS = wordnet()
SYNSETS = tuple(NOUNS.senses(name)[:1] for name in NAMES[:-1]) + ((),)
TREE = ClassTree.of(NAMES, SYNSETS, NOUNS)
ABOVE = {
    name: [NOUNS.name(s) for s in NOUNS.path(of[0])] if of else [name] for name, of in zip(NAMES, SYNSETS, strict=True)
}


@pytest.fixture(scope="module")
def maps():
    """Labels and predictions of some pixels; nothing is labelled or predicted bicycle."""
    rng = np.random.default_rng(0)
    label = rng.choice([0, 0, 1, 2, 3, 5], 300).astype(np.int32)
    prediction = np.where(rng.random(300) < 0.5, label, rng.choice([0, 1, 2, 3, 5], 300)).astype(np.int32)
    return label, prediction


@pytest.fixture(scope="module")
def confusion(maps):
    matrix = np.zeros((6, 6), np.int64)
    for t, p in zip(*maps, strict=True):
        matrix[t, p] += 1
    return matrix


@pytest.mark.parametrize(("depth", "classes"), [(0, 2), (6, 3), (12, 5), (99, 6)])
def test_cuts_against_sets_of_pixels(maps, confusion, depth, classes):
    shown = [[ABOVE[NAMES[i]][min(depth, len(ABOVE[NAMES[i]]) - 1)] for i in of] for of in maps]
    expected = {}
    for name in {*shown[0], *shown[1]}:
        labelled, predicted = ({i for i, at in enumerate(of) if at == name} for of in shown)
        expected[name] = len(labelled & predicted) / len(labelled | predicted)
    scores = cut_scores(confusion, TREE, depth, ("background",))
    assert {
        name: iou for name, iou in zip(scores.names, scores.iou, strict=True) if not np.isnan(iou)
    } == pytest.approx(expected)
    assert scores.mean_iou == pytest.approx(np.mean([iou for name, iou in expected.items() if name != "background"]))
    assert scores.pixel_acc == pytest.approx(np.mean([a == b for a, b in zip(*shown, strict=True)]))
    assert (scores.depth, len(scores.names)) == (depth, classes)


def test_below_all_classes_it_is_miou(maps, confusion):
    label, prediction = (x.reshape(15, 20) for x in maps)
    counts = SegmentationCounts.zeros(6).add(prediction, label)
    summary = counts.summary(NAMES, Vocabulary(NAMES, NAMES[:5], background="background"))
    scores = cut_scores(confusion, TREE, 30, ("background",))
    assert (scores.mean_iou, scores.pixel_acc) == pytest.approx((summary.mean_iou, summary.pixel_acc))
    assert cut_scores(confusion, TREE, 0, ("background",)).mean_iou > scores.mean_iou


def ways(synset):
    """All ways up, each a list that begins with the synset."""
    return [[synset, *way] for up in NOUNS.hypernyms[synset] for way in ways(up)] or [[synset]]


def steps(a, b):
    """Between two synsets by way of one that is above, or equal to, both."""
    pairs = [(one, other) for one in ways(a) for other in ways(b)]
    return min(one.index(s) + other.index(s) for one, other in pairs for s in one if s in other)


def test_credit_for_near_misses(maps, confusion):
    similarity = PathSimilarity(NOUNS.hypernyms, SYNSETS)
    groups = ("base", "base", "base", "novel", "novel", "background")
    credit = tree_credit(confusion, similarity, groups)
    label, prediction = (x.reshape(15, 20) for x in maps)
    assert_same_scores(credit.scores, OpenCounts.zeros(6).add(prediction, label, similarity).scores(groups))
    near = {(0, 1): 2, (0, 2): 4, (1, 2): 4}  # dog, wolf, cat
    for (a, b), walked in near.items():
        assert steps(SYNSETS[a][0], SYNSETS[b][0]) == walked
    few = np.zeros((6, 6), np.int64)
    few[0, 0], few[0, 1], few[2, 0], few[3, 5] = 5, 3, 2, 9
    found = tree_credit(few, similarity, groups)
    assert found.steps == pytest.approx((3 * 2 + 2 * 4) / 5)  # nothing lies between car and background
    assert found.scores.iou[0] == pytest.approx((5 + 3 / 3) / (8 + 2 * 4 / 5))
    assert np.isnan(tree_credit(np.diag([1] * 6).astype(np.int64), similarity).steps)


def assert_same_scores(found, expected):
    np.testing.assert_allclose(found.iou, expected.iou)
    assert found.scalars() == pytest.approx(expected.scalars(), nan_ok=True)


def test_a_matrix_of_other_classes_is_refused():
    with pytest.raises(UserError, match="the confusion matrix is of 3 classes, the tree of 6"):
        cut_scores(np.zeros((3, 3), np.int64), TREE, 1)
    with pytest.raises(UserError, match="of 3 classes, the similarities of 6"):
        tree_credit(np.zeros((3, 3), np.int64), PathSimilarity(NOUNS.hypernyms, SYNSETS))


def test_photos_add_up_against_loops_over_pixels(maps):
    """Car and bicycle are in no mean, as rivals are; some pixels have no label."""
    similarity = PathSimilarity(NOUNS.hypernyms, SYNSETS)
    counts = TreeCounts.zeros(TREE, similarity)
    label, prediction = maps[0].reshape(3, 10, 10).copy(), maps[1].reshape(3, 10, 10)
    label[:, 0] = IGNORE_LABEL
    for one, other in zip(prediction, label, strict=True):
        counts = counts.add(one, other)
    found = counts.scores([True, True, True, False, False, False])
    pixels = [(t, p) for t, p in zip(label.flat, prediction.flat, strict=True) if t != IGNORE_LABEL]
    for cut in found.cuts:
        shown = [[ABOVE[NAMES[i]][min(cut.depth, len(ABOVE[NAMES[i]]) - 1)] for i in pair] for pair in pixels]
        expected = []
        for name in {ABOVE[animal][min(cut.depth, len(ABOVE[animal]) - 1)] for animal in ("dog", "wolf", "cat")}:
            hits = sum(t == p == name for t, p in shown)
            expected.append(hits / sum(name in pair for pair in shown))
        assert cut.mean_iou == pytest.approx(np.mean(expected))
        assert cut.pixel_acc == pytest.approx(np.mean([t == p for t, p in shown]))
    remaining = [
        {ABOVE[name][min(depth, len(ABOVE[name]) - 1)] for name in NAMES} for depth in (cut.depth for cut in found.cuts)
    ]
    assert [set(cut.names) for cut in found.cuts] == remaining
    assert [len(cut.names) for cut in found.cuts][0] == 2  # entity, background
    assert len(found.cuts[-1].names) == len(NAMES)
    ways_off = [
        steps(SYNSETS[t][0], SYNSETS[p][0]) for t, p in pixels if t != p and "background" not in (NAMES[t], NAMES[p])
    ]
    assert found.steps == pytest.approx(np.mean(ways_off))
