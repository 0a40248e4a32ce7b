"""Scores by a hierarchy, against loops over pixels."""

import numpy as np
import pytest

from larvseg_jax.evaluation.metrics import SegmentationCounts
from larvseg_jax.evaluation.path_similarity import PathSimilarity
from larvseg_jax.evaluation.tree_scores import TreeCounts
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


def test_below_all_classes_it_is_miou(maps):
    label, prediction = (x.reshape(15, 20) for x in maps)
    counts = SegmentationCounts.zeros(6).add(prediction, label)
    summary = counts.summary(NAMES, Vocabulary(NAMES, NAMES[:5], background="background"))
    cuts = scored(prediction, label, [True] * 5 + [False]).cuts
    assert (cuts[-1].mean_iou, cuts[-1].pixel_acc) == pytest.approx((summary.mean_iou, summary.pixel_acc))
    assert cuts[0].mean_iou > cuts[-1].mean_iou


def scored(prediction, label, in_means):
    """The scores of one photo."""
    zeros = TreeCounts.zeros(TREE, PathSimilarity(NOUNS.hypernyms, SYNSETS))
    return zeros.add(prediction, label).scores(in_means)


def ways(synset):
    """All ways up, each a list that begins with the synset."""
    return [[synset, *way] for up in NOUNS.hypernyms[synset] for way in ways(up)] or [[synset]]


def steps(a, b):
    """Between two synsets by way of one that is above, or equal to, both."""
    pairs = [(one, other) for one in ways(a) for other in ways(b)]
    return min(one.index(s) + other.index(s) for one, other in pairs for s in one if s in other)


def test_how_far_mistakes_are():
    near = {(0, 1): 2, (0, 2): 4, (1, 2): 4}  # dog, wolf, cat
    for (a, b), walked in near.items():
        assert steps(SYNSETS[a][0], SYNSETS[b][0]) == walked
    pixels = 5 * [(0, 0)] + 3 * [(0, 1)] + 2 * [(2, 0)] + 9 * [(3, 5)]
    label, prediction = np.array(pixels, np.int32).T[:, None]
    assert scored(prediction, label, [True] * 6).steps == pytest.approx((3 * 2 + 2 * 4) / 5)  # none to the background
    assert np.isnan(scored(label, label, [True] * 6).steps)


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
