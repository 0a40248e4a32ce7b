"""Which query answers for which label, and what the losses are: in NumPy, with SciPy's assignment."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.special import log_softmax, softmax

from larvseg_jax.methods.cel.supervision import draws, losses_of, matchings
from larvseg_jax.vocabulary import IGNORE_LABEL
from tests.methods.cel.tiny_cel import QUERIES, config_of, labels, proposals

KEY = jax.random.key(3)


def at_points(image, points):
    """A map at points (x, y) in [0, 1], bilinear between the pixels' centres, 0 outside."""
    height, width = image.shape
    padded = np.pad(image.astype(np.float64), 1)
    x, y = points[:, 0] * width + 0.5, points[:, 1] * height + 0.5
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    a, b = x - left, y - top
    upper = padded[top, left] * (1 - a) + padded[top, left + 1] * a
    lower = padded[top + 1, left] * (1 - a) + padded[top + 1, left + 1] * a
    return upper * (1 - b) + lower * b


def ce_and_dice(logits, target, weight):
    p = 1 / (1 + np.exp(-logits))
    ce = -np.average(target * np.log(p) + (1 - target) * np.log1p(-p), weights=weight)
    return ce, 1 - (2 * (weight * p * target).sum() + 1) / ((weight * p).sum() + (weight * target).sum() + 1)


def weight_at(config, pixels, points):
    """What points count: all of them, or the part that has a label."""
    return np.ones(len(points)) if config.mask.where == "anywhere" else at_points(pixels != IGNORE_LABEL, points)


def costs(config, masks, similarity, known):
    """(cost of masks, cost of classes) of one output and picture, queries x its labels."""
    pixels, tags, points = known
    of_masks, of_classes = (np.zeros((QUERIES, len(tags))) for _ in range(2))
    score = softmax(similarity / config.temperature, axis=-1)
    for k, tag in enumerate(tags):
        target = at_points(pixels == tag, points)
        for q in range(QUERIES):
            ce, dice = ce_and_dice(at_points(masks[q], points), target, weight_at(config, pixels, points))
            of_masks[q, k] = 5 * ce + 5 * dice
        of_classes[:, k] = -(similarity if config.matching.class_cost == "similarity" else score)[:, tag]
    return of_masks, of_classes


def pairs(cost):
    """label -> query of the least total cost."""
    queries, found = linear_sum_assignment(cost)
    return dict(zip(found.tolist(), queries.tolist(), strict=True))


def expected(config, proposed, text, background):
    """(label -> query for masks, the same for classes) by output and picture."""
    known = labels()
    vectors, masks = (np.asarray(x, np.float64) for x in (proposed.vectors, proposed.masks))
    every = np.asarray(text if config.classes.unmatched == "uniform" else [*text, background], np.float64)
    points = np.asarray(draws(jax.random.fold_in(KEY, 0), 3, (8, 2)), np.float64)
    found = {}
    for o in range(2):
        for b in range(2):
            tags = [int(t) for t in known.tags[b] if t >= 0]
            pixels = np.asarray(known.pixels[b])
            of_masks, of_classes = costs(config, masks[o, b], vectors[o, b] @ every.T, (pixels, tags, points[b]))
            masked = np.isin(tags, pixels)
            if config.matching.classes == "unpaired":
                numbers = np.flatnonzero(masked)
                own = {int(numbers[k]): q for k, q in pairs(of_masks[:, masked]).items()}
                found[o, b] = own, pairs(of_classes)
                continue
            kept = masked if config.matching.classes == "paired" else np.full(len(tags), True)
            numbers = np.flatnonzero(kept)
            cost = 2 * of_classes + np.where(masked[None], of_masks, 0)
            both = {int(numbers[k]): q for k, q in pairs(cost[:, kept]).items()}
            found[o, b] = {k: q for k, q in both.items() if masked[k]}, both
    return found


SETTINGS = {
    "cel": dict(),
    "mask2former": dict(
        matching=dict(classes="paired", class_cost="probability"),
        classes=dict(unmatched="background"),
        rank=dict(weight=0.0),
    ),
    "half": dict(
        matching=dict(classes="paired_seen"), rank=dict(outputs="last"), mask=dict(where="labelled", points=8)
    ),
}


@pytest.fixture(scope="module", params=SETTINGS)
def setting(request):
    config = config_of(**SETTINGS[request.param])
    proposed, text, background = proposals()
    both = jax.jit(
        lambda p: (
            matchings(
                p,
                jnp.einsum("obqe,ce->obqc", p.vectors, jnp.stack([*text, background]))[
                    ..., : len(text) + (config.classes.unmatched == "background")
                ],
                labels(),
                jax.random.fold_in(KEY, 0),
                config,
            ),
            losses_of(p, text, background, labels(), KEY, config),
        )
    )
    return config, (proposed, text, background), *both(proposed)


def test_the_pairs_are_those_of_the_least_cost(setting):
    config, made, found, _ = setting
    for (o, b), wanted in expected(config, *made).items():
        for matching, pairs_of in zip(found, wanted, strict=True):
            matched = np.asarray(matching.matched[o, b])
            assert {k: int(matching.query[o, b, k]) for k in np.flatnonzero(matched)} == pairs_of
    for matching in found:  # of a picture that only fills up, none
        assert not np.asarray(matching.matched[:, 2]).any()


def class_losses(config, logits, wanted):
    """Of one output: (matched, others) queries of both pictures, wanted[b][q] the label or -1."""
    own = np.concatenate([log_softmax(x, axis=-1) for x in logits])
    wanted = np.concatenate(wanted)
    ce = -own[np.arange(len(own)), wanted]
    if config.classes.unmatched == "background":
        weight = np.where(wanted < 0, 0.1, 1.0)  # and the last column is that of "no object"
        return (weight * ce).sum() / weight.sum()
    kl = np.log(own.shape[1]) + (np.exp(own) * own).sum(-1)
    return 0.6 * ce[wanted >= 0].mean() + 0.4 * kl[wanted < 0].mean()


def rank(similarity, tags):
    best, absent = similarity.max(0), [c for c in range(similarity.shape[1]) if c not in tags]
    return sum(np.log1p(np.exp(best[k] - best[j])) for j in tags for k in absent) / len(tags)


def test_the_losses_by_hand(setting):
    config, (proposed, text, background), _, found = setting
    known, vectors = labels(), np.asarray(proposed.vectors, np.float64)
    text, background = np.asarray(text, np.float64), np.asarray(background, np.float64)
    every = text if config.classes.unmatched == "uniform" else np.concatenate([text, background[None]])
    all_pairs = expected(config, proposed, text, background)
    total = 0.0
    for o in range(2):
        wanted = []
        for b in range(2):
            of_query = np.full(QUERIES, -1)
            for k, q in all_pairs[o, b][1].items():
                of_query[q] = known.tags[b, k]
            wanted.append(of_query)
        logits = [vectors[o, b] @ every.T / config.temperature for b in range(2)]
        classes = class_losses(config, logits, wanted)
        assert found.classes[o] == pytest.approx(classes, rel=1e-4)
        right = [(x.argmax(-1) == w)[w >= 0] for x, w in zip(logits, wanted, strict=True)]
        assert found.named[o] == pytest.approx(np.concatenate(right).mean())
        ranks = np.mean([rank(vectors[o, b] @ text.T, [t for t in known.tags[b].tolist() if t >= 0]) for b in range(2)])
        total += 2 * classes + 5 * float(found.masks.ce[o]) + 5 * float(found.masks.dice[o])
        if config.rank.weight:
            assert found.rank[o] == pytest.approx(ranks, rel=1e-4)
            total += ranks * (config.rank.outputs == "all" or o == 1)
    assert found.total(config) == pytest.approx(total, rel=1e-4)


def test_masks_are_compared_where_they_are_least_certain(setting):
    """One number of points of each pair: 2 anywhere, 6 of 24 with the smallest logits."""
    config, (proposed, text, background), _, found = setting
    known, masks = labels(), np.asarray(proposed.masks, np.float64)
    drawn = np.asarray(draws(jax.random.fold_in(KEY, 1), 3, (2, 3, 2 + 24, 2)), np.float64)
    for o in range(2):
        losses = []
        for b in range(2):
            for k, q in expected(config, proposed, text, background)[o, b][0].items():
                logits = at_points(masks[o, b, q], drawn[b, o, k])
                chosen = [0, 1, *(2 + np.argsort(np.abs(logits[2:]), kind="stable")[:6])]
                target = at_points(np.asarray(known.pixels[b]) == int(known.tags[b, k]), drawn[b, o, k])
                weight = weight_at(config, np.asarray(known.pixels[b]), drawn[b, o, k])
                losses.append(ce_and_dice(logits[chosen], target[chosen], weight[chosen]))
        ce, dice = np.mean(losses, axis=0)
        assert found.masks.ce[o] == pytest.approx(ce, rel=1e-4)
        assert found.masks.dice[o] == pytest.approx(dice, rel=1e-4)


def test_slots_know_whether_their_class_has_a_mask():
    known = labels()
    np.testing.assert_array_equal(known.present, [[1, 1, 1], [1, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(known.masked, [[1, 1, 0], [1, 0, 0], [0, 0, 0]])
    assert known.tags[0, 2] != IGNORE_LABEL
