"""model.pixels: given what batches have, the network sees pictures as its weights know them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from larvseg_jax.models.pixels import normalised_batch, normalised_pictures
from larvseg_jax.models.vit import VisionTransformer, ViTConfig

CONFIG = ViTConfig(width=8, depth=1, num_heads=2, mlp_dim=12, patch_size=4, image_size=12)
IMAGENET = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
# As the libraries of these weights write them down, for levels of 0 to 1.
KNOWN = {
    "half": (np.array([0.5, 0.5, 0.5]), np.array([0.5, 0.5, 0.5])),
    "clip": (np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])),
}


def normalised(levels, mean_and_std):
    mean, std = mean_and_std
    return jnp.asarray((levels / 255 - mean) / std, jnp.float32)


@pytest.mark.slow
@pytest.mark.parametrize("pixels", KNOWN)
@pytest.mark.parametrize("stem", ["patch", "conv"])
def test_the_network_sees_what_its_weights_know(pixels, stem):
    """Also where the picture is filled up to whole patches: there it sees the mean colour of ImageNet."""
    levels = np.random.default_rng(0).integers(0, 256, (2, 9, 14, 3)).astype(np.float64)
    filled = np.tile(255 * IMAGENET[0], (2, 12, 16, 1))
    filled[:, :9, :14] = levels
    config = dataclasses.replace(CONFIG, stem=stem)
    given = normalised(levels, IMAGENET)
    params = VisionTransformer(config).init(jax.random.key(0), given)

    def features(config, images):
        return VisionTransformer(config).apply(params, images).patches

    found = features(dataclasses.replace(config, pixels=pixels), given)
    np.testing.assert_allclose(found, features(config, normalised(filled, KNOWN[pixels])), atol=1e-4)
    assert jnp.max(jnp.abs(found - features(config, given))) > 0.01


def test_the_batches_own_normalisation_adds_nothing_to_the_program():
    images = jnp.zeros((1, 12, 12, 3))
    params = VisionTransformer(CONFIG).init(jax.random.key(0), images)

    def operations(pixels):
        model = VisionTransformer(dataclasses.replace(CONFIG, pixels=pixels))
        return len(jax.make_jaxpr(model.apply)(params, images).eqns)

    assert operations("imagenet") < operations("half")


@pytest.mark.parametrize("crops", [(), (3,)])
def test_levels_are_normalised_as_the_tables_of_the_pipeline_do_it(crops):
    levels = np.random.default_rng(0).integers(0, 256, (2, *crops, 9, 14, 3), np.uint8)
    mean, std = IMAGENET
    found = normalised_pictures(jnp.asarray(levels))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, (levels / 255 - mean) / std, atol=1e-6)


def test_what_a_photo_leaves_open_is_the_mean_colour_whatever_its_levels():
    levels = np.random.default_rng(0).integers(0, 256, (3, 9, 14, 3), np.uint8)
    extents = np.array([[9, 14], [5, 14], [4, 0]])
    found = np.asarray(normalised_pictures(jnp.asarray(levels), jnp.asarray(extents, np.int32)))
    for one, picture, (height, width) in zip(found, levels, extents, strict=True):
        expected = np.zeros((9, 14, 3))
        expected[:height, :width] = ((picture / 255 - IMAGENET[0]) / IMAGENET[1])[:height, :width]
        np.testing.assert_allclose(one, expected, atol=1e-6)
        assert not one[height:].any()
        assert not one[:, width:].any()


def test_of_a_batch_only_levels_are_normalised():
    levels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
    batch = {
        "image": levels,
        "image_extent": np.array([[4, 2], [3, 4]], np.int32),
        "locals": levels[:, None],
        "recoloured": np.full((2, 4, 4, 3), 7, np.float32),
        "label": np.arange(8, dtype=np.int32).reshape(2, 2, 2),
    }
    found = normalised_batch({name: jnp.asarray(x) for name, x in batch.items()})
    assert found.keys() == batch.keys() - {"image_extent"}
    np.testing.assert_array_equal(found["recoloured"], batch["recoloured"])
    np.testing.assert_array_equal(found["label"], batch["label"])
    full, part = np.asarray(found["locals"])[:, 0], np.asarray(found["image"])
    assert np.abs(full).min() > 0
    np.testing.assert_array_equal(part[0, :, :2], full[0, :, :2])
    np.testing.assert_array_equal(part[1, :3], full[1, :3])
    assert not part[0, :, 2:].any()
    assert not part[1, 3:].any()
