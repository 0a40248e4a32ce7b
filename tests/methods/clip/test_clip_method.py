"""CLIP as a method: its loss, its classes and its scores, computed once more by hand."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.caption_views import CaptionView
from data_pipelines.views import MaskView
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.errors import UserError
from larvseg_jax.methods.class_vectors import class_vectors, ensemble, prompt_ids, spoken
from larvseg_jax.methods.clip import Config
from larvseg_jax.methods.clip.options import CaptionLoss
from larvseg_jax.methods.contrastive import contrastive_loss
from larvseg_jax.methods.method import Linear, Method, MethodConfig, ReadsText, StreamTask, Task
from larvseg_jax.models.clip import Clip, contrastive_logits
from larvseg_jax.models.dense_clip import dense_tokens
from larvseg_jax.models.text import TextConfig
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.text.prompts import filled, templates
from larvseg_jax.text.tokenizer import TokenizerConfig
from larvseg_jax.vocabulary import Vocabulary

WORDS = TokenizerConfig("words", ("a", "photo", "of", "cat", "dog", "red", "car"), 10)
VIT = ViTConfig(16, 2, 2, 32, patch_size=4, image_size=16, norm_before=True, patch_bias=False)
CONFIG = Config(width=12, text=TextConfig(16, 2, 2, 32), tokenizer=WORDS, templates="vild_14")
NAMES = ("cat", "red car", "dog")
LABELS = Vocabulary(NAMES).label_set()
IMAGES = jax.random.normal(jax.random.key(1), (3, 16, 20, 3))


def method_of(config=CONFIG, mesh=None, **streams):
    return config.make(Task(3, VIT, streams, mesh or make_mesh(1, 1, jax.devices()[:1])))


@pytest.fixture(scope="module")
def params():
    return method_of().init(jax.random.key(0))[0]


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def vectors_by_hand(params, of=CONFIG.templates):
    """Each prompt alone through the text tower, at its full length."""
    model, tokenizer = method_of().model, WORDS.make()
    found = []
    for name in NAMES:
        ids = jnp.asarray(np.stack([tokenizer(prompt) for prompt in filled(templates(of), name)]))
        found.append(unit(unit(np.asarray(model.apply({"params": params}, ids, method=Clip.texts))).mean(0)))
    return np.stack(found)


def test_it_is_a_method():
    assert isinstance(CONFIG, MethodConfig)
    method = method_of()
    assert isinstance(method, Method)
    assert isinstance(method, ReadsText)


@pytest.mark.parametrize("features", ["value", "value_block", "tokens"])
def test_the_original_runs_the_image_tower_otherwise_and_the_text_tower_as_it_is(features):
    as_trained = dataclasses.replace(VIT, mlp="quick_gelu", layer_norm_epsilon=1e-2, pixels="clip")
    mesh, config = make_mesh(1, 1, jax.devices()[:1]), dataclasses.replace(CONFIG, features=features)
    of, other = (config.make(Task(3, vit, {}, mesh)) for vit in (as_trained, VIT))  # VIT: gelu, 1e-6, ImageNet's pixels
    original = dataclasses.replace(config, original_quirks=True).make(Task(3, as_trained, {}, mesh))
    params = of.init(jax.random.key(0))[0]
    np.testing.assert_array_equal(original.text_vectors(params, NAMES), of.text_vectors(params, NAMES))
    np.testing.assert_array_equal(original.embed(params, IMAGES), other.embed(params, IMAGES))
    assert not np.allclose(original.embed(params, IMAGES), of.embed(params, IMAGES), atol=1e-3)
    assert not np.allclose(other.text_vectors(params, NAMES), of.text_vectors(params, NAMES), atol=1e-6)


def test_the_loss_by_hand():
    rng = np.random.default_rng(0)
    images, texts = jnp.asarray(rng.normal(size=(2, 5, 4)), jnp.float32)
    logits = 7.0 * unit(np.asarray(images)) @ unit(np.asarray(texts)).T
    real = [0, 1, 3]

    def cross_entropies(rows):
        return np.log(np.exp(rows).sum(1)) - np.diag(rows)

    def expected(logits):
        return (cross_entropies(logits).mean() + cross_entropies(logits.T).mean()) / 2

    ours = contrastive_logits(images, texts, jnp.asarray(7.0))
    loss = functools.partial(contrastive_loss, ours, symmetric=True)
    np.testing.assert_allclose(loss(jnp.ones(5, bool)), expected(logits), rtol=1e-5)
    valid = jnp.asarray([i in real for i in range(5)])
    of_real = expected(logits[np.ix_(real, real)])
    np.testing.assert_allclose(loss(valid), of_real, rtol=1e-5)
    nothing = loss(jnp.zeros(5, bool))
    assert nothing == 0


def test_pictures_and_captions_are_compared_as_in_training(params):
    """The loss of a batch, once more from the vectors and the scale that others get."""
    view = CaptionView(crop_size=16, text=WORDS)
    method = method_of(captions=StreamTask(LABELS, view, CaptionLoss(), 3))
    tokens = jnp.asarray(np.stack([WORDS.make()(text) for text in ("a cat", "red car", "a photo of dog")]))
    images, texts = method.image_vectors(params, IMAGES), method.caption_vectors(params, tokens)
    for vectors in (images, texts):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    batch = {"captions": dict(image=IMAGES, tokens=tokens, valid=jnp.ones(3, bool))}
    loss, _ = method.loss(params, (), batch, jax.random.key(0))
    logits = np.asarray(method.logit_scale(params)) * np.asarray(images) @ np.asarray(texts).T
    np.testing.assert_allclose(
        contrastive_loss(jnp.asarray(logits), jnp.ones(3, bool), symmetric=True), loss, rtol=1e-5
    )
    assert method.logit_scale({**params, "logit_scale": jnp.log(100.0)}) == pytest.approx(100, rel=1e-5)


def test_classes_are_means_over_their_prompts(params):
    method = method_of()
    expected = vectors_by_hand(params)
    np.testing.assert_allclose(method.text_vectors(params, NAMES), expected, atol=2e-6)
    scorer = method.scorer(LABELS)
    np.testing.assert_allclose(scorer.vectors(params, None).vectors, expected, atol=2e-6)
    single = vectors_by_hand(params, "a photo of a {}")
    np.testing.assert_allclose(method.text_vectors(params, NAMES, "a photo of a {}"), single, atol=2e-6)


def test_many_prompts_are_read_some_at_a_time(params, monkeypatch):
    ids = prompt_ids(NAMES, templates("vild_14"), WORDS.make())
    assert ids.shape[-1] <= WORDS.context
    model = method_of().model
    asked = []

    def texts(chunk):
        asked.append(chunk.shape)
        return model.apply({"params": params}, chunk, method=Clip.texts)

    monkeypatch.setattr("larvseg_jax.methods.class_vectors._PROMPTS", 28)
    np.testing.assert_allclose(class_vectors(texts, ids), vectors_by_hand(params), atol=2e-6)
    assert set(asked) == {(28, ids.shape[-1])}


def test_what_keeps_names_apart_is_not_said():
    assert spoken("crane (n02012849)") == "crane"
    assert spoken("dog (coco_stuff_171)") == "dog"
    assert spoken("bat (animal)") == "bat (animal)"


@pytest.mark.parametrize("features", ["value", "value_block", "tokens"])
def test_scores_are_scaled_cosines(params, features):
    method = method_of(dataclasses.replace(CONFIG, features=features))
    tokens = dense_tokens(features, VIT, "all_heads", params["backbone"], IMAGES)
    patches = unit(np.asarray(tokens.patches) @ np.asarray(params["image_projection"]))
    expected = 100 * patches @ vectors_by_hand(params).T
    scorer = method.scorer(LABELS)
    assert isinstance(scorer, Linear)
    assert scorer.costly
    np.testing.assert_allclose(method.embed(params, IMAGES), patches, atol=2e-5)
    np.testing.assert_allclose(scorer.scores(params, None, IMAGES), expected, atol=2e-3)
    classes = scorer.vectors(params, None)
    found = scorer.features(params, None, classes, IMAGES) @ classes.vectors.T + classes.offset
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert patches.shape == (3, 4, 5, 12)


@pytest.mark.parametrize("features", ["value_block", "tokens"])
def test_bfloat16_changes_little(params, features):
    half = dataclasses.replace(CONFIG, features=features, text=dataclasses.replace(CONFIG.text, dtype="bfloat16"))
    task = Task(3, dataclasses.replace(VIT, dtype="bfloat16"), {}, make_mesh(1, 1, jax.devices()[:1]))
    whole = method_of(dataclasses.replace(CONFIG, features=features))
    np.testing.assert_allclose(half.make(task).embed(params, IMAGES), whole.embed(params, IMAGES), atol=0.05)
    vectors = half.make(task).text_vectors(params, NAMES)
    np.testing.assert_allclose(vectors, whole.text_vectors(params, NAMES), atol=0.05)


def test_classes_that_are_nowhere_sure_win_nowhere(params):
    expected = np.asarray(method_of().scorer(LABELS).scores(params, None, IMAGES))
    best = np.exp(expected - expected.max(-1, keepdims=True))
    best = (best / best.sum(-1, keepdims=True)).max((1, 2))
    threshold = float(np.sort(best.ravel())[3:5].mean())
    scorer = method_of(dataclasses.replace(CONFIG, prompt_denoising=threshold)).scorer(LABELS)
    assert not isinstance(scorer, Linear)
    denoised = np.where(best[:, None, None] < threshold, -1e4, expected)
    np.testing.assert_allclose(scorer.scores(params, None, IMAGES), denoised, atol=2e-3)


def test_smoothed_scores_are_votes_of_like_keys(params):
    expected = np.asarray(method_of().scorer(LABELS).scores(params, None, IMAGES)).reshape(3, 20, 3)
    votes = np.exp(expected - expected.max(-1, keepdims=True))
    votes /= votes.sum(-1, keepdims=True)
    keys = unit(np.asarray(dense_tokens("value", VIT, "all_heads", params["backbone"], IMAGES).keys).reshape(3, 20, 16))
    mixed = np.einsum("bid,bjd,bjn->bin", keys, keys, votes)
    scorer = method_of(dataclasses.replace(CONFIG, key_smoothing="channels")).scorer(LABELS)
    found = np.asarray(scorer.scores(params, None, IMAGES)).reshape(3, 20, 3)
    np.testing.assert_allclose(found, mixed, rtol=1e-3, atol=1e-3)


def test_the_ensemble_does_not_depend_on_lengths():
    features = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    scaled = features * np.float32([1, 5, 0.2])[None, :, None]
    np.testing.assert_allclose(ensemble(jnp.asarray(features)), ensemble(jnp.asarray(scaled)), atol=1e-6)


def batch_of(size):
    tokens = np.stack([WORDS.make()(text) for text in ("a cat", "red car", "a dog", "photo", "of a", "car")])
    return {
        "image": jax.random.normal(jax.random.key(2), (size, 16, 16, 3)),
        "tokens": jnp.asarray(tokens[np.arange(size) % 6]),
        "valid": jnp.arange(size) < 6,
    }


@pytest.mark.slow
def test_a_few_steps_learn_which_caption_belongs_to_which_picture():
    stream = StreamTask(LABELS, CaptionView(crop_size=16, text=WORDS), CaptionLoss(), 8)
    method = method_of(mesh=make_mesh(2, 1, jax.devices()[:2]), captions=stream)
    params, memory = method.init(jax.random.key(0))
    batch, key = {"captions": batch_of(8)}, jax.random.key(3)

    @jax.jit
    def step(params):
        (loss, (metrics, seen)), gradient = jax.value_and_grad(method.loss, has_aux=True)(params, memory, batch, key)
        assert method.remember(memory, params, seen) == ()
        return loss, metrics, jax.tree.map(lambda x, g: x - 3e-3 * jnp.sign(g), params, gradient)

    losses = []
    for _ in range(40):
        loss, metrics, params = step(params)
        losses.append(float(loss))
    assert losses[0] == pytest.approx(np.log(6), abs=1.5)
    assert losses[-1] < 0.5
    assert metrics["captions/L_contrastive"] == pytest.approx(losses[-1])
    assert 10 < metrics["logit_scale"] <= 100


def test_what_does_not_go_is_told():
    with pytest.raises(UserError, match="CLIP learns from captions; a stream with MaskView teaches it nothing"):
        CONFIG.loss_options(MaskView)
    assert CONFIG.loss_options(CaptionView) is CaptionLoss
    stream = StreamTask(LABELS, CaptionView(crop_size=16), CaptionLoss(), 8)
    with pytest.raises(UserError, match=r"streams\.captions\.text and method\.tokenizer differ"):
        method_of(captions=stream)
    with pytest.raises(UserError, match="prompt_denoising is 2.0: give a probability"):
        Config(prompt_denoising=2.0)
    with pytest.raises(UserError, match="begins at pictures"):
        CONFIG.make(Task(3, VIT, {}, make_mesh(1, 1, jax.devices()[:1]), first_block=1))
