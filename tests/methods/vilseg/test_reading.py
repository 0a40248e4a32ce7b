"""Classes of windows: against regions and cosines by hand, and as the search over many classes sees them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.evaluator import make_patch_values
from larvseg_jax.methods.method import FindsClusters, Linear, ReadsText
from larvseg_jax.methods.vilseg.network import Network
from larvseg_jax.text.prompts import templates
from larvseg_jax.vocabulary import Vocabulary
from tests.methods.vilseg.setting import LABELS, TEXT, batch_of, method_of


def prepared(**sections):
    method = method_of(**sections)
    params, memory = method.init(jax.random.key(3))
    return method, params, memory, batch_of(5)["image"][:3]


def texts_of(method, params, sentences):
    ids = jnp.asarray(np.stack([TEXT.make()(sentence) for sentence in sentences]))
    found = np.asarray(method.network.apply({"params": params}, ids, method=Network.texts))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def by_hand(method, params, images, texts, normalise=False):
    """Classes of the patches of each picture."""
    patches = np.asarray(method.network.apply({"params": params}, images, method=Network.images).patches)
    head = params["cluster_head"]
    winners = (patches @ np.asarray(head["kernel"]) + np.asarray(head["bias"])).argmax(-1)
    if normalise:
        patches = patches / np.linalg.norm(patches, axis=-1, keepdims=True)
    classes = np.zeros(winners.shape, int)
    for i, clusters in enumerate(winners):
        for cluster in np.unique(clusters):
            mean = patches[i][clusters == cluster].mean(0)
            classes[i][clusters == cluster] = (texts @ mean).argmax()
    return classes


@pytest.mark.parametrize("upsample", ["logits", "labels"])
@pytest.mark.parametrize("normalise", [False, True])
def test_the_class_of_a_patch_is_that_of_its_region(upsample, normalise):
    method, params, memory, images = prepared(eval=dict(upsample=upsample, normalise_pixels=normalise))
    scorer = method.scorer(LABELS)
    scores = make_patch_values(scorer.scores, method.task.mesh)(params, memory, np.asarray(images))
    texts = texts_of(method, params, [f"a photo of a {name}." for name in LABELS.names])
    np.testing.assert_array_equal(scores.argmax(-1), by_hand(method, params, images, texts, normalise))
    if upsample == "labels":
        assert isinstance(scorer, Linear)
        classes = scorer.vectors(params, memory)
        products = np.asarray(scorer.features(params, memory, classes, images)) @ np.asarray(classes.vectors).T
        np.testing.assert_allclose(products, scores, atol=1e-5)


def test_any_name_has_a_text_vector():
    method, params, _, _ = prepared()
    assert isinstance(method, ReadsText)
    found = method.text_vectors(params, ("red blue", "green"), "{}")
    np.testing.assert_allclose(found, texts_of(method, params, ["red blue", "green"]), atol=1e-5)


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_vectors_of_pictures_and_captions(pool):
    method, params, _, images = prepared(encoder=dict(pool=pool))
    embedded = method.network.apply({"params": params}, images, method=Network.images)
    whole = np.asarray(embedded.cls) if pool == "cls" else np.asarray(embedded.patches).mean((1, 2))
    expected = whole / np.linalg.norm(whole, axis=1, keepdims=True)
    np.testing.assert_allclose(method.image_vectors(params, images), expected, atol=1e-5)
    ids = jnp.asarray(np.stack([TEXT.make()("red blue"), TEXT.make()("green")]))
    expected = texts_of(method, params, ["red blue", "green"])
    np.testing.assert_allclose(method.caption_vectors(params, ids), expected, atol=1e-5)
    assert method.logit_scale(params) == pytest.approx(1 / 0.07)


def test_two_classes_that_are_one_to_the_words_are_refused():
    method, params, memory, images = prepared()
    with pytest.raises(UserError, match="'zebra' and 'okapi' are the same"):
        method.text_vectors(params, ("red", "zebra", "okapi"))
    scores = method.scorer(Vocabulary(("red", "zebra"), (), ()).label_set()).scores(params, memory, images)
    assert scores.shape[-1] == 2


def test_templates_are_averaged():
    method, params, _, _ = prepared(eval=dict(templates="vild_14", upsample="labels"))
    found = method.scorer(LABELS).vectors(params, None).vectors
    sentences = [
        texts_of(method, params, [t.replace("{}", name) for name in LABELS.names]) for t in templates("vild_14")
    ]
    mean = np.mean(sentences, axis=0)
    np.testing.assert_allclose(found, mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-5)


def test_a_column_of_no_class_never_wins():
    method, params, memory, images = prepared()
    padded = LABELS.padded(8)
    scores = np.asarray(method.scorer(padded).scores(params, memory, images))
    assert scores.shape[-1] == 8
    plain = np.asarray(method.scorer(LABELS).scores(params, memory, images))
    np.testing.assert_array_equal(scores.argmax(-1), plain.argmax(-1))


def test_kmeans_needs_no_head_and_is_the_same_every_time():
    method, params, memory, images = prepared(eval=dict(clusters="kmeans"))
    other = {**params, "cluster_head": jax.tree.map(lambda x: -x, params["cluster_head"])}
    scores = method.scorer(LABELS).scores
    np.testing.assert_array_equal(scores(params, memory, images), scores(other, memory, images))


def test_the_head_with_the_lowest_loss_is_read():
    method, params, memory, images = prepared(cluster=dict(heads=2))
    memory = {**memory, "head_losses": jnp.asarray([-1.0, -2.0])}
    single = method_of()
    of_second = {**params, "cluster_head": jax.tree.map(lambda x: x[..., 4:], params["cluster_head"])}
    expected = single.scorer(LABELS).scores(of_second, {}, images)
    np.testing.assert_allclose(method.scorer(LABELS).scores(params, memory, images), expected, atol=1e-5)


def test_figures_show_where_a_class_is():
    method, params, memory, images = prepared()
    tags = jnp.asarray([[2, 0, -1]], jnp.int32)
    (maps,) = method.figures(params, memory, LABELS, images, tags).values()
    classes = np.asarray(method.scorer(LABELS).scores(params, memory, images)).argmax(-1)
    np.testing.assert_array_equal(np.asarray(maps)[..., :2] > 0, np.stack([classes == 2, classes == 0], -1))
    assert not (np.asarray(maps)[..., 2] > 0).any()


@pytest.mark.parametrize("clusters", ["head", "kmeans"])
def test_each_cluster_has_the_class_that_its_patches_get(clusters):
    method, params, memory, images = prepared(eval=dict(clusters=clusters))
    padded = LABELS.padded(8)  # columns that no pixel can have
    bias = params["cluster_head"]["bias"].at[1].set(-100.0)  # of the head's clusters one stays empty
    params = {**params, "cluster_head": {**params["cluster_head"], "bias": bias}}
    found = method.named_clusters(params, memory, padded, images)
    assert isinstance(method, FindsClusters)
    np.testing.assert_array_equal(found.clusters, method.clusters(params, memory, images))
    classes = np.asarray(method.scorer(LABELS).scores(params, memory, images)).argmax(-1)
    for of_patch, of_cluster, expected in zip(*map(np.asarray, found), classes, strict=True):
        np.testing.assert_array_equal(of_cluster[of_patch], expected)
        empty = np.setdiff1d(np.arange(4), of_patch)
        np.testing.assert_array_equal(of_cluster[empty], np.full(len(empty), -1))
        assert clusters == "kmeans" or 1 in empty


def test_patch_features_are_unit_vectors():
    method, params, _, images = prepared()
    norms = np.linalg.norm(np.asarray(method.embed(params, images)), axis=-1)
    np.testing.assert_allclose(norms, 1, rtol=1e-5)


def test_rivals_compete_by_their_names():
    method, params, memory, images = prepared(eval=dict(upsample="labels"))
    vocabulary = Vocabulary(("red", "green", "blue"), (), ())
    rivals = vocabulary.with_rivals(vocabulary.label_set(["red"]), ["red", "blue"])
    vectors = method.scorer(rivals).vectors(params, memory)
    np.testing.assert_array_equal(vectors.multiplicity, [1, 0, 1])
    assert method.scorer(rivals).scores(params, memory, images).shape[-1] == 3
