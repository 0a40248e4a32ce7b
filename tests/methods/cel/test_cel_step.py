"""The loss of a batch on any number of devices, and how pixels are scored."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from data_pipelines.mask_tag_views import MaskTagView
from data_pipelines.views import TagView
from larvseg_jax.devices.mesh import batch_sharding, make_mesh
from larvseg_jax.errors import UserError
from larvseg_jax.methods.cel.supervision import Labels, losses_of
from larvseg_jax.methods.method import Dense, Linear, Method, MethodConfig, StreamTask, Task
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.text.vectors import write_text_vectors
from larvseg_jax.vocabulary import Vocabulary
from tests.methods.cel.tiny_cel import CLASSES, TEXT_WIDTH, config_of, unit

NAMES = ("red", "green", "blue", "grey", "brown")
VOCABULARY = Vocabulary(NAMES, NAMES[:3], NAMES[3:])
VIT = ViTConfig(width=16, depth=1, num_heads=2, mlp_dim=16, patch_size=4, image_size=16)
BATCH = 8
KEY = jax.random.key(1)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "text.npz"
    write_text_vectors(
        file, NAMES, unit(np.random.default_rng(5).normal(size=(CLASSES, TEXT_WIDTH))).astype(np.float32)
    )
    return dict(vectors=str(file), width=TEXT_WIDTH)


def method_of(text, devices=1, **sections):
    config = config_of(text=text, **sections)
    stream = StreamTask(VOCABULARY.label_set(NAMES[:4]), None, config.loss_options(MaskTagView)(weight=2.0), BATCH)
    mesh = make_mesh(devices, 1, jax.devices()[:devices])
    return config.make(Task(8, VIT, {"photos": stream}, mesh, NAMES))


def batch_of(pictures=BATCH, counted=BATCH):
    """Classes 0 and 1 with masks, and in every other picture 3 without one; further pictures are noise, too."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(-1, 2, (2 * BATCH, 8, 8)).astype(np.int32)
    tags = np.tile(np.array([0, 1, 3, -1], np.int32), (2 * BATCH, 1))
    tags[::2, 2] = -1
    image = rng.normal(size=(2 * BATCH, 16, 16, 3)).astype(np.float32)
    arrays = dict(image=image, label=pixels, tags=tags, valid=np.arange(2 * BATCH) < counted)
    return {name: jnp.asarray(value[:pictures]) for name, value in arrays.items()}


@pytest.fixture(scope="module")
def one(text):
    """The method on one device, its state, and loss, metrics and gradient of a batch."""
    method = method_of(text)
    rng = np.random.default_rng(0)  # drawn here, since to compile the network's own draws takes longer
    layout, _ = jax.eval_shape(method.init, jax.random.key(0))
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape, scale=0.3), jnp.float32), layout)
    memory = jnp.ones((8, TEXT_WIDTH)).at[: len(NAMES)].set(method.config.text.read(NAMES))
    gradient = jax.jit(jax.value_and_grad(method.loss, has_aux=True))
    return method, params, memory, gradient(params, memory, {"photos": batch_of()}, KEY)


COMPETING = VOCABULARY.label_set(("brown", "red", "blue")).padded(4)  # the fourth is no class


@pytest.fixture(scope="module")
def seen(text, one):
    """What the network says of the batch, the losses of that, scores of both kinds, and figures."""
    method, params, memory, _ = one
    other = method_of(text, classes=dict(unmatched="background"))

    @jax.jit
    def all_of_it(params, memory, arrays):
        image = arrays["image"]
        proposed = method.network.apply({"params": params}, image)
        known = Labels(arrays["label"], arrays["tags"], arrays["valid"])
        key = jax.random.fold_in(jax.random.fold_in(KEY, 0), 1)
        losses = losses_of(proposed, memory[:4], params["background"], known, key, method.config)
        scores = {
            m.config.classes.unmatched: m.scorer(COMPETING).scores(params, memory, image) for m in (method, other)
        }
        figures = method.figures(params, memory, VOCABULARY.label_set(), image, jnp.array([[2, 0, -1]]))
        return proposed, losses, scores, (figures, method.proposals(params, memory, image))

    return all_of_it(params, memory, batch_of())


def test_it_is_a_method(one):
    method, _, memory, _ = one
    assert isinstance(method, Method)
    assert isinstance(method.config, MethodConfig)
    assert memory.shape == (8, TEXT_WIDTH)


def test_the_loss_is_that_of_its_proposals(one, seen):
    method, _, _, ((loss, (metrics, _)), gradient) = one
    _, found, _, _ = seen
    assert loss == pytest.approx(2 * float(found.total(method.config)), rel=1e-4)
    assert metrics["photos/L_dice"] == pytest.approx(float(found.masks.dice[-1]), rel=1e-4)
    moved = {part for part, of in gradient.items() if any(np.abs(x).max() > 0 for x in jax.tree.leaves(of))}
    assert moved == gradient.keys() - {"background"}


def test_eight_devices_and_rows_that_fill_up_change_nothing(text, one):
    _, params, memory, expected = one
    method = method_of(text, devices=8)
    sharding = batch_sharding(method.task.mesh)
    batch = {name: jax.device_put(value, sharding) for name, value in batch_of(2 * BATCH, counted=BATCH).items()}
    with jax.set_mesh(method.task.mesh):
        gradient = jax.jit(jax.value_and_grad(method.loss, has_aux=True))
        found = gradient(params, memory, {"photos": batch}, KEY)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5), found, expected)


@pytest.mark.parametrize("unmatched", ["uniform", "background"])
def test_pixels_are_scored_by_their_proposals(one, seen, unmatched):
    """Eq. 4 on a grid of 2 x 2 elements a patch; a class of multiplicity 0 has no part in it."""
    method, params, memory, _ = one
    scorer = method.scorer(COMPETING)
    assert isinstance(scorer, Dense)
    assert not isinstance(scorer, Linear)
    proposed, _, scores, _ = seen
    found = np.asarray(scores[unmatched])
    assert found.shape[1:3] == (8, 8)
    vectors, masks = (np.asarray(x[-1], np.float64) for x in (proposed.vectors, proposed.masks))
    every = np.asarray(memory, np.float64)[[4, 0, 2]]
    if unmatched == "background":
        every = np.concatenate([every, unit(np.asarray(params["background"], np.float64))[None]])
    p = softmax(vectors @ every.T / method.config.temperature, axis=-1)[..., :3]
    expected = np.einsum("bqc,bqhw->bhwc", p, 1 / (1 + np.exp(-masks)))
    np.testing.assert_allclose(found[..., :3], expected, rtol=1e-3, atol=1e-5)
    assert (found[..., 3] == 0).all()


def test_proposals_and_the_mask_of_the_query_most_like_a_tag(one, seen):
    proposed, _, _, (figures, proposals) = seen
    vectors, masks = proposed.vectors, proposed.masks
    (maps,) = figures.values()
    assert proposals.shape == (BATCH, 6, 8, 8)
    np.testing.assert_allclose(proposals, masks[-1], atol=1e-5)
    for b in range(BATCH):
        for slot, row in ((0, 2), (1, 0)):
            best = int((np.asarray(vectors[-1, b]) @ np.asarray(one[2])[row]).argmax())
            np.testing.assert_allclose(maps[b, ..., slot], masks[-1, b, best], atol=1e-4)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (dict(temperature=0.0), "temperature is 0.0"),
        (dict(text=dict(vectors="", width=0)), "give method.text.vectors and .width"),
        (dict(decoder=dict(width=15)), "decoder.width is 15"),
        (dict(decoder=dict(pixels="msdeform")), "set decoder.masks_per_patch to 4"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(sections, said):
    with pytest.raises(UserError, match=said):
        config_of(**sections)


def test_streams_of_tags_alone_teach_nothing():
    with pytest.raises(UserError, match="a stream with TagView teaches it nothing"):
        config_of().loss_options(TagView)
