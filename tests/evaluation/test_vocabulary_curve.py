"""The curve over nested vocabularies against every vocabulary on its own, by NumPy."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from larvseg_jax import evaluate
from larvseg_jax.assemble import make_method
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.photos import label_map
from larvseg_jax.evaluation.vocabulary_curve import nested_label_sets, vocabulary_curve
from larvseg_jax.methods.method import Dense, Linear
from larvseg_jax.trained import Trained
from larvseg_jax.vocabulary import Vocabulary
from tests import tiny
from tests.evaluation.test_rivals import CONFIG, SIZES, Photos, dense, linear, patch_features, vectors_of

NAMES = tuple("abcdefghijklmnopqrst")
SCORED = ("h", "b", "d", "a", "t", "k")
SMALL = np.float32(0.1)  # padded patches are 0


def whole_label_set(vocabulary):
    return vocabulary.with_rivals(vocabulary.label_set(SCORED), NAMES)


def test_vocabularies_are_nested_scored_classes_first():
    whole = whole_label_set(Vocabulary(NAMES))
    nested = nested_label_sets(whole, (3, 6, 9, 100, 3), seed=1)
    assert [(len(of.label_set), of.label_set.scored, of.label_set.rivals) for of in nested] == [
        (3, 3, 0),
        (6, 6, 0),
        (9, 6, 3),
        (20, 6, 14),
    ]
    for smaller, larger in zip(nested, nested[1:], strict=False):
        assert larger.label_set.names[: len(smaller.label_set)] == smaller.label_set.names
    assert set(nested[1].label_set.names) == set(SCORED)
    assert set(nested[-1].label_set.names) == set(NAMES)
    for of in nested:
        assert [NAMES[row] for row in of.label_set.rows] == list(of.label_set.names)
        for column, name in enumerate(whole.names):
            known = name in of.label_set.names[: of.label_set.scored]
            assert of.column[column] == (of.label_set.names.index(name) if known else -1)
    assert nested_label_sets(whole, (3,), seed=2)[0].label_set.names != nested[0].label_set.names


def unused(*_):
    raise AssertionError("nothing but the scorer is asked for")


class Toy:
    """Scores that are standardised over whatever competes; the network is counted."""

    init = loss = remember = embed = flops = figures = unused

    def __init__(self, all_vectors):
        self.all_vectors, self.traced = all_vectors, 0

    def scorer(self, label_set):
        plain = linear(label_set, self.all_vectors)

        def embed(params, memory, images):
            self.traced += 1
            return patch_features(images)

        def scale(patches, classes):
            return patches / (jnp.std(patches @ classes.vectors.T, axis=-1, keepdims=True) + SMALL)

        return Linear(plain.scores, plain.vectors, embed, scale)


@pytest.mark.slow
def test_every_point_is_what_its_vocabulary_scores_alone():
    vocabulary = Vocabulary(NAMES, base=("h", "d"), novel=("a", "t", "k"))
    whole, toy = whole_label_set(vocabulary), Toy(vectors_of(len(NAMES)))
    nested = nested_label_sets(whole, (4, 6, 11, 20), seed=0)
    photos = Photos(6)  # columns of SCORED, and 6, which is other
    points = vocabulary_curve(toy, jnp.float32(1), None, nested, photos, vocabulary, CONFIG, make_mesh(8, 1))
    assert [(p.classes, p.scored) for p in points] == [(4, 4), (6, 6), (11, 6), (20, 6)]
    assert toy.traced == 1  # one network for all vocabularies
    for point, of in zip(points, nested, strict=True):
        names = of.label_set.names
        hit, predicted, labelled = (np.zeros(len(names)) for _ in range(3))
        for i in range(len(SIZES)):
            example = photos[i]
            windows, test_size = CONFIG.windows.cut(example["image"]), CONFIG.windows.test_size(example["image"].shape)
            scores = np.asarray(patch_features(windows)) @ toy.all_vectors[of.label_set.rows].T
            scores = (scores / (scores.std(-1, keepdims=True) + SMALL)).astype(np.float32)
            prediction = label_map(scores, test_size, SIZES[i], CONFIG)
            for k, name in enumerate(SCORED):
                if name in names[: of.label_set.scored]:
                    truth = example["label"] == k
                    labelled[names.index(name)] += truth.sum()
                    hit[names.index(name)] += (truth & (prediction == names.index(name))).sum()
                    predicted += np.bincount(prediction[truth], minlength=len(names))
        own = slice(of.label_set.scored)
        iou = hit[own] / (predicted + labelled - hit)[own]
        assert point.summary.names == names[own]
        np.testing.assert_allclose(point.summary.iou, iou, rtol=0.02)  # ties up to rounding
        assert point.summary.mean_iou == pytest.approx(iou.mean(), rel=0.02)
        np.testing.assert_array_equal(point.summary.labelled, labelled[own])


def test_a_method_whose_scores_are_no_products_is_refused():
    class Plain:
        init = loss = remember = embed = flops = figures = unused

        def scorer(self, label_set) -> Dense:
            return dense(label_set, vectors_of(len(NAMES)))

    vocabulary = Vocabulary(NAMES)
    nested = nested_label_sets(whole_label_set(vocabulary), (4,), seed=0)
    with pytest.raises(UserError, match="no products of features and class vectors"):
        vocabulary_curve(Plain(), None, None, nested, Photos(6), vocabulary, CONFIG, make_mesh(8, 1))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A network of no training, whose evaluation lets Cityscapes' classes compete with those of VOC."""
    folder = tiny.write_data(tmp_path)
    names = ("other", "cat", "dog", "sheep", "cow")
    (folder / "classes.json").write_text(json.dumps({"names": names, "ignore": 255}))
    config = tiny.get_config()
    config.data_root = str(tmp_path)
    config.vocabulary.update(classes=(), base=(), novel=(), background="")
    config.class_lists.update(lists=("voc_20", "cityscapes_19"))
    config.streams.masks.update(classes=(), class_list="cityscapes_19")
    del config.streams["tags"]
    config.evals.val.update(class_list="voc_20", rivals="cityscapes_19")
    found, mesh = from_config(config), make_mesh(8, 1)
    method = make_method(found, mesh)
    params, memory = method.init(jax.random.key(0))
    trained = Trained(method, params, memory, found.vocabulary, config.to_dict(), tmp_path, 7, {})
    monkeypatch.setattr(evaluate, "load_trained", lambda *_, **__: trained)
    return config


def test_the_curve_is_written_with_its_plot(run, tmp_path, capsys):
    points = evaluate.evaluate_curve(tmp_path, tmp_path / "out" / "curve.json", sizes=(5, 20))
    written = json.loads((tmp_path / "out" / "curve.json").read_text())
    assert (written["evaluation"], written["step"], written["photos"]) == ("val", 7, tiny.VALIDATION)
    # Of Cityscapes' 19 classes five have names of VOC: person, car, bus, train, bicycle.
    shared = 5
    assert [(p["classes"], p["scored"]) for p in written["points"]] == [(5, 5), (20, 20), (39 - shared, 20)]
    assert [p["mIoU"] for p in written["points"]][1:] == [p.summary.mean_iou for p in points][1:]
    assert (tmp_path / "out" / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "34" in capsys.readouterr().out


def test_without_rivals_there_is_nothing_to_grow(run, tmp_path):
    run.evals.val.rivals = ""
    with pytest.raises(UserError, match="no evaluation has rivals.*--config"):
        evaluate.evaluate_curve(tmp_path, tmp_path / "curve.json", config=run)
