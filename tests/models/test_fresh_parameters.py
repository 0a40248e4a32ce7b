"""What training from scratch starts from: mean, deviation and bounds of every parameter (docs/method.md, 2 and 3)."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from larvseg_jax.models.cosine_head import CosineHead
from larvseg_jax.models.vit import VisionTransformer
from larvseg_jax.models.vit_config import ViTConfig

CONFIG = ViTConfig(width=96, depth=1, num_heads=3, mlp_dim=224, patch_size=8, image_size=64)
BLOCK = "Transformer/encoderblock_"


def initial_deviations(stem):
    """Standard deviation and largest absolute value of every fresh parameter that is no constant, by its path.

    Xavier uniform: deviation sqrt(2 / (in + out)), bound sqrt(3) deviations. LeCun normal: deviation 1 / sqrt(in), cut
    at two of the normal distribution before cutting, which is 1 / 0.8796 times as wide.
    """
    width, mlp, patch = CONFIG.width, CONFIG.mlp_dim, CONFIG.patch_size

    def xavier(inputs, outputs):
        return math.sqrt(2 / (inputs + outputs)), math.sqrt(6 / (inputs + outputs))

    def lecun(inputs):
        return inputs**-0.5, 2 / 0.87962566 * inputs**-0.5

    found = {"Transformer/posembed_input/pos_embedding": (0.02, math.inf)}
    if stem == "patch":
        found["embedding/kernel"] = lecun(patch * patch * 3)
    else:
        inputs = (3, *(width >> i for i in (2, 1)))
        found |= {f"stem/conv_{i}/kernel": lecun(9 * n) for i, n in enumerate(inputs)}
        found["stem/out/kernel"] = lecun(width)
    for i in range(CONFIG.depth):
        for name in ("query", "key", "value", "out"):
            found[f"{BLOCK}{i}/MultiHeadDotProductAttention_1/{name}/kernel"] = xavier(width, width)
        for name, sides in (("Dense_0", (width, mlp)), ("Dense_1", (mlp, width))):
            found[f"{BLOCK}{i}/MlpBlock_3/{name}/kernel"] = xavier(*sides)
            found[f"{BLOCK}{i}/MlpBlock_3/{name}/bias"] = 1e-6, math.inf
    return found


@pytest.mark.parametrize("stem", ["patch", "conv"])
def test_the_backbone(stem):
    config = dataclasses.replace(CONFIG, stem=stem)
    init = jax.jit(VisionTransformer(config).init)
    params = traverse_util.flatten_dict(init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"], sep="/")
    drawn, seen = initial_deviations(stem), set()
    assert drawn.keys() <= params.keys()
    for name, values in params.items():
        values = np.float64(values)
        if name not in drawn:
            assert name.endswith(("/scale", "/bias", "cls")), name
            np.testing.assert_array_equal(values, float(name.endswith("/scale")), err_msg=name)
            continue
        std, largest = drawn[name]
        np.testing.assert_allclose(values.mean() / std, 0.0, atol=5 * values.size**-0.5, err_msg=name)
        np.testing.assert_allclose(values.std() / std, 1.0, atol=4 * values.size**-0.5, err_msg=name)
        assert np.abs(values).max() <= 1.0001 * largest, name
        seen.add(round(values.ravel()[0] / std, 5))
    assert len(seen) == len(drawn), "two parameters are the same draw"


@pytest.mark.slow
def test_registers_are_drawn_and_branches_begin_small():
    """Registers that are the same at first would stay the same; the scales are those DINOv2's training begins with."""
    config = dataclasses.replace(CONFIG, registers=6, layer_scale=True)
    params = VisionTransformer(config).init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]["Transformer"]
    registers = np.asarray(params["registers"])[0]
    np.testing.assert_allclose(registers.std(), 0.02, rtol=0.2)
    assert len(np.unique(registers[:, 0])) == 6
    for name in ("attention_scale", "mlp_scale"):
        np.testing.assert_array_equal(params["encoderblock_0"][name], np.full(96, 1e-5, np.float32))


def test_the_head():
    """Projections that keep the length of a vector, small embeddings, gamma as asked for, no shift."""
    classes, width = 400, 256
    head = CosineHead(classes, width, gamma_init=2.5)
    features, one_row = jnp.ones((1, 1, 1, width)), jnp.zeros(1, jnp.int32)
    init = jax.jit(
        lambda key: head.init(
            key, features, one_row, method=lambda h, x, r: (h.patches(x), h.classes(r, jnp.ones(1)).vectors)
        )
    )
    fresh = init(jax.random.key(0))["params"]
    for name, std in (("proj_patch", 1 / 16), ("proj_classes", 1 / 16), ("class_embeddings", 0.02)):
        values = np.asarray(fresh[name])
        error = 5 * std / np.sqrt(values.size)  # five standard deviations of the mean; of the deviation a little more
        np.testing.assert_allclose(values.mean(), 0.0, atol=error, err_msg=name)
        np.testing.assert_allclose(values.std(), std, atol=error, err_msg=name)
    assert np.any(np.asarray(fresh["proj_patch"]) != np.asarray(fresh["proj_classes"]))
    assert (float(fresh["gamma"]), float(fresh["beta"])) == (2.5, 0.0)
