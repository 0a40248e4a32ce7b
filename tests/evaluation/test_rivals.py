"""An evaluation among rivals: what they win is "other"; over many classes no map of all their scores is made."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax import monitoring

from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.evaluation import sliding_window
from larvseg_jax.evaluation.config import EvalConfig
from larvseg_jax.evaluation.evaluator import Evaluator
from larvseg_jax.evaluation.photos import label_map
from larvseg_jax.evaluation.search import SEARCHED_FROM, Search
from larvseg_jax.evaluation.tiles import axis_tiles, rounded_up
from larvseg_jax.methods.method import Dense, Linear, Vectors
from larvseg_jax.vocabulary import OTHER, Vocabulary

WINDOW, PATCH, DEPTH = 16, 4, 5
SIZES = [(20, 30), (45, 19), (18, 18), (12, 40), (21, 31)]
CONFIG = EvalConfig(scale=(48, 16), window=WINDOW, stride=WINDOW, batch_size=8)
MIX = np.random.default_rng(3).normal(size=(3, DEPTH)).astype(np.float32)


class Photos:
    """Random pixels with labels from -1 to `highest`."""

    def __init__(self, highest):
        self.highest = highest

    def __len__(self):
        return len(SIZES)

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        return {
            "id": f"photo {index}",
            "image": cells(rng, SIZES[index]),
            "label": rng.integers(-1, self.highest + 1, SIZES[index], dtype=np.int32),
        }


def cells(rng, size):
    """Large cells of one colour each, so that most pixels have one class that is clearly the best."""
    colours = rng.integers(0, 256, (size[0] // 8 + 1, size[1] // 8 + 1, 3), dtype=np.uint8)
    return colours.repeat(8, 0).repeat(8, 1)[: size[0], : size[1]]


def patch_features(images):
    b, h, w, _ = images.shape
    means = images.reshape(b, h // PATCH, PATCH, w // PATCH, PATCH, 3).mean((2, 4))
    return means @ jnp.asarray(MIX)


def vectors_of(classes):
    rng = np.random.default_rng(classes)
    vectors = rng.normal(size=(classes, DEPTH)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def linear(label_set, all_vectors):
    """A scorer over the columns' rows; it refuses to make scores of all classes."""

    def scores(params, memory, images):
        raise AssertionError("the map of all classes was asked for")

    def vectors(params, memory):
        return Vectors(
            jnp.asarray(all_vectors[label_set.rows]) * params, jnp.asarray(label_set.multiplicity), jnp.zeros(())
        )

    return Linear(scores, vectors, lambda params, memory, images: patch_features(images))


def dense(label_set, all_vectors):
    def scores(params, memory, images):
        return patch_features(images) @ jnp.asarray(all_vectors[label_set.rows].T)

    return Dense(scores)


def predicted(index, all_vectors, config=CONFIG):
    """The best row at every pixel, every window's logits upsampled and laid in place one by one."""
    example = Photos(0)[index]
    windows, test_size = config.windows.cut(example["image"]), config.windows.test_size(example["image"].shape)
    logits = np.asarray(patch_features(windows)) @ all_vectors.T
    return label_map(logits, test_size, SIZES[index], config)


def evaluator(label_set, vocabulary, scorer, highest, keep=()):
    mesh = make_mesh(8, 1)
    return Evaluator(CONFIG, Photos(highest), label_set, vocabulary, (), scorer, mesh, keep)


@pytest.mark.parametrize("kind", [linear, dense])
def test_what_rivals_win_is_other(kind):
    """Four scored classes among nine, every count made anew from the map over all nine."""
    names = tuple("abcdefghi")
    vocabulary = Vocabulary(names, base=("b", "h"), novel=("d", "a"))
    all_vectors = vectors_of(9)
    label_set = vocabulary.with_rivals(vocabulary.label_set(("h", "b", "d", "a")), names)
    found = evaluator(label_set, vocabulary, kind(label_set, all_vectors), 4, keep=range(5))(jnp.float32(1), None)
    column = {"h": 0, "b": 1, "d": 2, "a": 3}
    hit, predictions, labels = np.zeros(5), np.zeros(5), np.zeros(5)
    for i in range(len(SIZES)):
        expected = np.array([column.get(name, 4) for name in names], np.int32)[predicted(i, all_vectors)]
        assert (found.label_maps[i] == expected).mean() > 0.995  # the rest: ties up to rounding
        label = Photos(4)[i]["label"]
        for k in range(5):
            mine, truth = (found.label_maps[i] == k) & (label >= 0), label == k
            hit[k] += (mine & truth).sum()
            predictions[k] += mine.sum()
            labels[k] += truth.sum()
    assert (predictions > 0).sum() > 2  # or nothing is shown
    assert predictions[4] > 0
    summary, iou = found.summary, hit / (predictions + labels - hit)
    assert summary.names == ("h", "b", "d", "a", OTHER)
    assert summary.groups == ("base", "base", "novel", "novel", "background")
    np.testing.assert_allclose(summary.iou, iou)
    assert summary.mean_iou == pytest.approx(iou[:4].mean())
    assert summary.scalars()["IoU_background"] == pytest.approx(iou[4])
    assert summary.pixel_acc == pytest.approx(hit.sum() / labels.sum())


@pytest.mark.slow
def test_many_classes_are_searched_and_give_the_same_scores():
    classes = SEARCHED_FROM + 3
    vocabulary = Vocabulary(tuple(map(str, range(classes))))
    label_set, all_vectors = vocabulary.label_set(), vectors_of(classes)
    found = evaluator(label_set, vocabulary, linear(label_set, all_vectors), 3, keep=range(5))(jnp.float32(1), None)
    for i in range(len(SIZES)):
        assert (found.label_maps[i] == predicted(i, all_vectors)).mean() > 0.995
    few = vocabulary.label_set(vocabulary.classes[: SEARCHED_FROM - 1])
    with pytest.raises(AssertionError, match="map of all classes"):
        evaluator(few, vocabulary, linear(few, all_vectors), 3)(jnp.float32(1), None)


@pytest.mark.slow
@pytest.mark.parametrize("resize", ["logits", "labels"])
def test_a_search_equals_all_logits_stitched(resize):
    config = EvalConfig(scale=(48, 16), window=WINDOW, stride=10, resize=resize)
    all_vectors = vectors_of(300)
    search = Search(Vectors(jnp.asarray(all_vectors), jnp.ones(300), jnp.zeros(())), config)
    for i, size in enumerate(SIZES):
        image = Photos(0)[i]["image"]
        windows, test_size = config.windows.cut(image), config.windows.test_size(image.shape)
        features = np.asarray(patch_features(windows))
        expected = label_map(features @ all_vectors.T, test_size, size, config)
        assert (search(features, test_size, size) == expected).mean() > 0.995


def test_photos_of_many_sizes_share_their_programs():
    """Else each of ImageNet's thousands of sizes would be compiled anew, for seconds."""
    config = EvalConfig(scale=(192, 64), window=64, stride=64)
    all_vectors = vectors_of(50)
    search = Search(Vectors(jnp.asarray(all_vectors), jnp.ones(50), jnp.zeros(())), config)
    rng = np.random.default_rng(0)

    def label(size):
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        features = np.asarray(patch_features(config.windows.cut(image)))
        return search(features, config.windows.test_size(size), size)

    label((120, 162))
    with CompileCount() as count:
        for width in range(163, 166):
            assert label((120, width)).shape == (120, width)
    assert count.programs == 0


class CompileCount:
    """How many programs JAX compiles meanwhile."""

    def __enter__(self):
        self.programs = 0
        monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def _listen(self, event, duration, **_):
        self.programs += event == "/jax/core/compile/backend_compile_duration"

    def __exit__(self, *_):
        monitoring.unregister_event_duration_listener(self._listen)


def test_tiles_of_rounded_sizes_say_the_same():
    matrix = sliding_window.stitch_matrix(45, 16, 16, 4, 91, padded=True)
    tiles, larger = axis_tiles(matrix), rounded_up(axis_tiles(matrix), 8)
    assert larger.weights.shape[0] % 8 == larger.weights.shape[1] % 16 == larger.weights.shape[2] % 4 == 0
    for axis in (tiles, larger):
        made = np.zeros_like(matrix)
        for first, last, sources, weights in zip(axis.first, axis.last, axis.sources, axis.weights, strict=True):
            for sample in range(first, last + 1):
                np.add.at(made[sample], sources, weights[sample - first])
        np.testing.assert_allclose(made, matrix)
