"""The photos of a report: whose maps are shown."""

import itertools

import jax.numpy as jnp
import numpy as np

from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.evaluation.config import EvalConfig
from larvseg_jax.evaluation.evaluator import Evaluator
from larvseg_jax.methods.method import Dense, NamedClusters
from larvseg_jax.report.gallery import make_gallery, make_tagged_gallery, photos_by_score, tagged_photos
from larvseg_jax.vocabulary import OTHER, Vocabulary


class Photos:
    """One photo, mostly of what is none of the classes."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        label = np.full((16, 16), 2, np.int32)
        label[0], label[1:3] = 1, 0
        return {"id": "photo", "image": np.zeros((16, 16, 3), np.uint8), "label": label}


def unused(*_):
    raise AssertionError("nothing but the figures is asked for")


class Method:
    init = loss = remember = embed = flops = scorer = unused

    def figures(self, params, memory, label_set, windows, tags):
        return {"attention": jnp.zeros((len(windows), 4, 4, tags.shape[1]))}


def test_other_is_no_class_with_a_map():
    vocabulary = Vocabulary(("cat", "dog", "cow"))
    label_set = vocabulary.with_rivals(vocabulary.label_set(("cat", "dog")), ("cow",))
    config, mesh = EvalConfig(scale=(16, 16), window=16, stride=16), make_mesh(8, 1)
    scorer = Dense(lambda params, memory, images: jnp.zeros((len(images), 4, 4, len(label_set))))
    evaluator = Evaluator(config, Photos(), label_set, vocabulary, (), scorer, mesh)
    prediction = np.zeros((16, 16), np.int32)
    (item,) = make_gallery(Method(), mesh, None, None, evaluator, {0: prediction}, vocabulary)
    assert [caption for caption, _ in item.figures] == ["attention: cat", "attention: dog"]
    assert OTHER in label_set.names


class Clustering(Method):
    """The left half is cluster 2, of class 1, the right half cluster 0, of class 0; cluster 1 is empty."""

    def named_clusters(self, params, memory, label_set, windows):
        halves = jnp.broadcast_to(jnp.array([2, 2, 0, 0])[None, None], (len(windows), 4, 4))
        return NamedClusters(halves, jnp.broadcast_to(jnp.array([0, -1, 1])[None], (len(windows), 3)))


def test_clusters_of_a_photo_in_one_window_are_shown():
    vocabulary = Vocabulary(("cat", "dog", "cow"))
    label_set, mesh = vocabulary.label_set(), make_mesh(8, 1)
    scorer = Dense(lambda params, memory, images: jnp.zeros((len(images), 4, 4, len(label_set))))
    prediction = np.zeros((16, 16), np.int32)

    def found(method, **sides):
        evaluator = Evaluator(EvalConfig(**sides), Photos(), label_set, vocabulary, (), scorer, mesh)
        (item,) = make_gallery(method, mesh, None, None, evaluator, {0: prediction}, vocabulary)
        return item.clusters

    whole = found(Clustering(), scale=(16, 16), window=16, stride=16)
    np.testing.assert_array_equal(whole.clusters, np.repeat([[2] * 8 + [0] * 8], 16, 0))
    assert whole.classes.tolist() == [0, -1, 1]
    filled_up = found(Clustering(), scale=(16, 16), window=32, stride=32)  # all of the photo lies in the left half
    assert set(filled_up.clusters.ravel().tolist()) == {2}
    assert found(Clustering(), scale=(16, 16), window=8, stride=8) is None  # clusters of several windows
    assert found(Method(), scale=(16, 16), window=16, stride=16) is None


def test_best_middling_and_worst_photos_are_no_neighbours():
    scores = [0.5] * 100
    scores[10:14] = [0.99, 0.98, 0.97, 0.96]  # four pictures of one scene
    scores[60], scores[80], scores[81], scores[30] = 0.9, 0.01, 0.02, 0.1
    scores[99] = float("nan")  # shows nothing that counts
    chosen = photos_by_score(scores, 2)
    assert chosen["best"] == [10, 60]
    assert chosen["worst"] == [80, 30]
    assert len(chosen["middling"]) == 2
    everything = [number for numbers in chosen.values() for number in numbers]
    assert min(abs(a - b) for a, b in itertools.combinations(everything, 2)) > 5
    assert all(scores[number] == 0.5 for number in chosen["middling"])
    assert photos_by_score([], 2) == {"best": [], "middling": [], "worst": []}
    assert photos_by_score([0.3], 2) == {"best": [0], "middling": [], "worst": []}


class Tagged:
    """Photo i shows class i % 5, and every third one class 4 besides."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        tags = {index % 5} | ({4} if index % 3 == 0 else set())
        pixels = np.full((16, 16, 3), 10 * index % 250, np.uint8)
        return {"id": f"t{index}", "image": pixels, "tags": np.array(sorted(tags), np.int32)}


def test_tagged_photos_show_every_novel_class():
    source = Tagged(200)
    chosen = tagged_photos(source, {3, 4}, 4)
    assert len(chosen) == 4
    shown = {int(tag) for number in chosen for tag in source[number]["tags"]}
    assert {3, 4} <= shown
    assert all({3, 4} & set(source[number]["tags"].tolist()) for number in chosen)
    assert tagged_photos(source, {9}, 4) == []
    assert tagged_photos(Tagged(0), {3}, 4) == []


def test_a_tagged_photo_has_prediction_tags_and_maps():
    vocabulary = Vocabulary(("cat", "dog", "cow"), base=("cat",), novel=("dog", "cow"))
    label_set = vocabulary.label_set(("dog", "cat"))
    stream = Vocabulary(("elk", "owl", "cow", "yak", "dog"), novel=("dog",)).label_set()
    config, mesh = EvalConfig(scale=(16, 16), window=16, stride=16), make_mesh(8, 1)
    scores = jnp.asarray([0.0, 1.0])
    scorer = Dense(lambda params, memory, images: jnp.broadcast_to(scores, (len(images), 4, 4, 2)))
    evaluator = Evaluator(config, Photos(), label_set, vocabulary, (), scorer, mesh)
    (item,) = make_tagged_gallery(Method(), mesh, None, None, evaluator, Tagged(9), stream, [6], vocabulary)
    assert item.id == "t6"
    assert item.truth is None
    assert (item.prediction == 1).all()
    assert item.note == "tags: dog, owl"
    assert [caption for caption, _ in item.figures] == ["attention: dog"]
