"""Base classes alone, which classes are taken for which, and the offset of novel scores, against pixels one by one."""

import collections

import jax.numpy as jnp
import numpy as np
import pytest

from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.config import EvalConfig
from larvseg_jax.evaluation.confusion import Confusion, pairs_of
from larvseg_jax.evaluation.evaluator import Evaluator
from larvseg_jax.evaluation.novel_offset import BASE_LOST, with_novel_offset
from larvseg_jax.evaluation.photos import SeveralPasses
from larvseg_jax.evaluation.search import Search
from larvseg_jax.methods.method import Dense, Linear, Vectors, with_offsets
from larvseg_jax.vocabulary import Vocabulary

NAMES = ("background", "cat", "dog", "cow", "sheep")
VOCABULARY = Vocabulary(NAMES, base=("cat", "dog"), novel=("cow", "sheep"), background="background")
NOVEL = np.array([3, 4])
WINDOW, PATCH, DEPTH = 16, 4, 6
SIZES = [(16, 16), (20, 30), (18, 37)]
CONFIG = dict(scale=(64, 16), window=WINDOW, stride=WINDOW, batch_size=8)
RNG = np.random.default_rng(5)
MIX, VECTORS = RNG.normal(size=(3, DEPTH)), RNG.normal(size=(len(NAMES), DEPTH))


class Photos:
    """Large cells of one colour, and labels that often are what the scores say."""

    def __len__(self):
        return len(SIZES)

    def __getitem__(self, index):
        rng, (height, width) = np.random.default_rng(index), SIZES[index]
        cells = rng.integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
        image = cells.repeat(4, 0).repeat(4, 1)[:height, :width]
        guess = (((image - 120.0) / 58) @ MIX @ VECTORS.T).argmax(-1)
        label = np.where(rng.random((height, width)) < 0.6, guess, rng.integers(-1, 5, (height, width)))
        return {"id": f"photo {index}", "image": image, "label": label.astype(np.int32)}


def features(images):
    b, h, w, _ = images.shape
    means = images.reshape(b, h // PATCH, PATCH, w // PATCH, PATCH, 3).mean((2, 4))
    return means @ jnp.asarray(MIX, jnp.float32)


def scorer():
    vectors = jnp.asarray(VECTORS, jnp.float32)
    return Linear(
        lambda _params, _memory, images: features(images) @ vectors.T + 0.5,
        lambda _params, _memory: Vectors(vectors, jnp.ones(len(NAMES)), jnp.float32(0.5)),
        lambda _params, _memory, images: features(images),
    )


def evaluator(of=None, vocabulary=VOCABULARY, names=NAMES, **changes):
    config = EvalConfig(**CONFIG | changes)
    label_set = vocabulary.label_set(names)
    return Evaluator(config, Photos(), label_set, vocabulary, (), of or scorer(), make_mesh(8, 1), range(len(SIZES)))


def label_maps(of=None, **changes):
    return evaluator(of, **changes)({}, None).label_maps


def without_novel():
    offsets = np.zeros(len(NAMES), np.float32)
    offsets[NOVEL] = -1e6
    return with_offsets(scorer(), offsets)


def test_base_classes_alone_are_scored_as_if_there_were_no_others():
    summary = evaluator()({}, None).summary
    alone = label_maps(without_novel())
    hit, either = np.zeros(5), np.zeros(5)
    for i in range(len(SIZES)):
        label = Photos()[i]["label"]
        counted = (label >= 0) & ~np.isin(label, NOVEL)
        for k in range(5):
            mine, truth = counted & (alone[i] == k), counted & (label == k)
            hit[k] += (mine & truth).sum()
            either[k] += (mine | truth).sum()
    assert summary.base_alone_iou == pytest.approx((hit / np.maximum(either, 1))[1:3].mean())
    assert summary.base_alone_iou > summary.base_iou  # novel classes do win pixels here
    assert summary.scalars()["mIoU_base_alone"] == summary.base_alone_iou
    assert f"mIoU_base_alone {100 * summary.base_alone_iou:.2f}" in summary.text()


def test_which_classes_are_taken_for_which():
    evaluation = evaluator()({}, None)
    summary, pairs = evaluation.summary, collections.Counter()
    for i, prediction in evaluation.label_maps.items():
        pairs.update(zip(Photos()[i]["label"].flat, prediction.flat, strict=True))
    pairs = {(int(t), int(p)): n for (t, p), n in pairs.items() if t >= 0}
    found = summary.confusion
    assert dict(zip(zip(found.labels, found.predictions, strict=True), found.pixels, strict=True)) == pairs
    of_base = sum(n for (t, _), n in pairs.items() if t in (1, 2))
    taken = sum(n for (t, p), n in pairs.items() if t in (1, 2) and p in (3, 4))
    assert summary.base_as_novel == pytest.approx(taken / of_base)
    back = sum(n for (t, p), n in pairs.items() if t in (3, 4) and p in (1, 2))
    assert summary.novel_as_base == pytest.approx(back / sum(n for (t, _), n in pairs.items() if t in (3, 4)))
    worst = sorted(((n, -t, -p) for (t, p), n in pairs.items() if t != p and t != 0), reverse=True)[:4]
    assert [(m.pixels, -m.label, -m.prediction) for m in found.worst(4, left_out=[0])] == worst
    np.testing.assert_array_equal(
        summary.predicted, [sum(n for (_, p), n in pairs.items() if p == k) for k in range(5)]
    )


def test_without_novel_classes_there_is_nothing_to_tell():
    base = Vocabulary(NAMES[:3], base=("cat", "dog"), novel=(), background="background")
    assert Confusion.zeros().worst(3) == []
    assert np.isnan(Confusion.zeros().share(np.ones(5, bool), np.ones(5, bool)))

    class Base(Photos):
        def __getitem__(self, index):
            photo = super().__getitem__(index)
            return photo | {"label": np.minimum(photo["label"], 2)}

    vectors = jnp.asarray(VECTORS[:3], jnp.float32)
    dense = Dense(lambda _params, _memory, images: features(images) @ vectors.T)
    found = Evaluator(EvalConfig(**CONFIG), Base(), base.label_set(), base, (), dense, make_mesh(8, 1))
    scalars = found({}, None).summary.scalars()
    assert not {"mIoU_base_alone", "base_as_novel", "novel_as_base"} & scalars.keys()


def test_a_searched_evaluation_has_the_same_offset():
    offsets = np.array([0, 0, 0, -1.5, 0.75], np.float32)
    linear = with_offsets(scorer(), offsets)
    dense = with_offsets(Dense(scorer().scores), offsets)
    images = jnp.asarray(RNG.normal(size=(2, WINDOW, WINDOW, 3)), jnp.float32)
    plain = np.asarray(scorer().scores({}, None, images))
    for of in (linear, dense):
        np.testing.assert_allclose(of.scores({}, None, images), plain + offsets, rtol=1e-6)
    classes = linear.vectors({}, None)
    found = linear.features({}, None, classes, images) @ classes.vectors.T + classes.offset
    np.testing.assert_allclose(found, plain + offsets, rtol=1e-5)
    maps = label_maps(dense)
    search = Search(classes, EvalConfig(**CONFIG))
    for i in range(len(SIZES)):
        config = EvalConfig(**CONFIG)
        image = Photos()[i]["image"]
        windows = np.asarray(config.windows.cut(image))
        patches = np.asarray(linear.features({}, None, classes, jnp.asarray(windows)))
        searched = search(patches, config.windows.test_size(image.shape), image.shape[:2])
        assert (searched == maps[i]).mean() > 0.995  # the rest: ties up to rounding


def test_the_offset_of_novel_classes_changes_their_scores_alone():
    found = with_novel_offset(scorer(), NAMES, VOCABULARY, -2.0)
    images = jnp.zeros((1, WINDOW, WINDOW, 3))
    np.testing.assert_allclose(
        found.scores({}, None, images) - scorer().scores({}, None, images),
        np.broadcast_to([0, 0, 0, -2.0, -2.0], (1, 4, 4, 5)),
        atol=1e-6,
    )
    same = scorer()
    assert with_novel_offset(same, NAMES, VOCABULARY, 0.0) is same
    with pytest.raises(UserError, match="novel_offset is nan: give a number"):
        EvalConfig(novel_offset=float("nan"))


def test_the_chosen_offset_leaves_novel_classes_their_share():
    at_once = evaluator(choose_novel_offset=True)
    evaluation = at_once({}, None)
    chosen = evaluation.novel_offset
    alone = label_maps(without_novel())
    right = {i: alone[i] == Photos()[i]["label"] for i in alone}

    def lost(offset):
        joint = label_maps(with_novel_offset(scorer(), NAMES, VOCABULARY, offset))
        taken = sum((np.isin(joint[i], NOVEL) & right[i]).sum() for i in joint)
        return taken / sum(r.sum() for r in right.values())

    assert lost(chosen - 0.02) <= BASE_LOST <= lost(chosen + 0.02)
    assert lost(0.0) > BASE_LOST  # it was needed
    assert evaluation.scalars()["novel_offset"] == chosen
    assert f"novel_offset {chosen:.2f} (chosen)" in evaluation.text().splitlines()[0]
    joint = label_maps(with_novel_offset(scorer(), NAMES, VOCABULARY, chosen))
    again = at_once.predict({}, None, [Photos()[i]["image"] for i in range(len(SIZES))])
    for i in joint:
        assert (evaluation.label_maps[i] == joint[i]).mean() > 0.995  # the rest: ties up to rounding
        np.testing.assert_array_equal(again[i], evaluation.label_maps[i])
    assert evaluator()({}, None).scalars().keys() == evaluation.scalars().keys() - {"novel_offset"}
    only_base = Vocabulary(NAMES, base=NAMES[1:], novel=(), background="background")
    with pytest.raises(UserError, match="here are not both"):
        evaluator(vocabulary=only_base, choose_novel_offset=True)  # before anything is trained
    with pytest.raises(UserError, match=r"novel_offset is 1\.0, and choose_novel_offset is set|is to be chosen"):
        EvalConfig(novel_offset=1.0, choose_novel_offset=True)


def test_without_a_pixel_that_is_right_nothing_is_added():
    class Wrong(Photos):
        def __getitem__(self, index):
            return super().__getitem__(index) | {"label": np.full(SIZES[index], -1, np.int32)}

    config = EvalConfig(**CONFIG, choose_novel_offset=True)
    found = Evaluator(config, Wrong(), VOCABULARY.label_set(), VOCABULARY, (), scorer(), make_mesh(8, 1))
    assert found({}, None).novel_offset == 0.0


@pytest.mark.parametrize(("room", "calls"), [(None, 5), (0, 10), (2 * 8 * 16 * 5 * 4, 8)])  # all, none, two batches
def test_a_choice_computes_the_windows_once_as_far_as_there_is_room(room, calls, monkeypatch):
    """And its scores are those of the two passes, bit by bit."""

    class Many(Photos):
        def __len__(self):
            return 18  # of 2 windows on average

        def __getitem__(self, index):
            return super().__getitem__(index % len(SIZES))

    def found(room=None):
        config = EvalConfig(**CONFIG, choose_novel_offset=True)
        evaluator = Evaluator(config, Many(), VOCABULARY.label_set(), VOCABULARY, (), scorer(), make_mesh(8, 1))
        network, asked = evaluator._patch_values, []
        evaluator._patch_values = lambda *arguments: asked.append(1) or network(*arguments)
        if room is not None:
            monkeypatch.setattr("larvseg_jax.evaluation.evaluator.SeveralPasses", lambda x: SeveralPasses(x, room))
        return evaluator({}, None), len(asked)

    evaluation, asked = found(room)
    assert asked == calls
    apart, _ = found(0)
    assert evaluation.novel_offset == apart.novel_offset != 0
    for a, b in zip(*(vars(x.summary.confusion).values() for x in (evaluation, apart)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("columns", [6, 1024, 1025, 30_000])  # counted, and sorted
def test_pairs_are_those_of_the_pixels(columns):
    rng = np.random.default_rng(columns)
    label = rng.integers(-1, 5, (9, 11)).astype(np.int32)
    prediction = rng.integers(columns - 3, columns, (9, 11)).astype(np.int32)
    expected = collections.Counter(zip(label.ravel().tolist(), prediction.ravel().tolist(), strict=True))
    labels, predictions, pixels = pairs_of(prediction, label, columns)
    found = dict(zip(zip(labels.tolist(), predictions.tolist(), strict=True), pixels.tolist(), strict=True))
    assert found == {pair: count for pair, count in expected.items() if pair[0] >= 0}
    assert [part.size for part in pairs_of(prediction, np.full_like(label, -1), columns)] == [0, 0, 0]
