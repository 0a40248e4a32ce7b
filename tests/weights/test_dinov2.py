"""A real DINOv2 ViT-S/14, where its file is there: our tokens are those of transformers (tests/data/README.md)."""

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from larvseg_jax.models.vit import VisionTransformer, ViTConfig
from larvseg_jax.weights.pretrained import load_pretrained
from tests.conftest import REPOSITORY
from tests.data.record_dinov2_vits14 import picture

RECORDED = json.loads((REPOSITORY / "tests/data/dinov2_vits14.json").read_text())
VIT = ViTConfig(384, 12, 6, 1536, patch_size=14, image_size=518, layer_scale=True)


@pytest.fixture
def file(shared):
    """LARVSEG_DINOV2, else weights/dinov2_vits14.npz in the shared folder."""
    path = Path(os.environ.get("LARVSEG_DINOV2") or shared / "weights/dinov2_vits14.npz")
    if not path.is_file():
        pytest.skip(f"no DINOv2 here: set LARVSEG_DINOV2 to its file ({path} is none)")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("size", RECORDED["features"])
def test_tokens_of_the_real_file(file, size):
    images = jnp.asarray(picture(*map(int, size.split("x"))))[None]
    shapes = jax.eval_shape(VisionTransformer(VIT).init, jax.random.key(0), images)["params"]
    zeros = {"backbone": jax.tree.map(lambda x: jnp.zeros(x.shape), shapes)}
    params, report = load_pretrained(file, zeros, VIT, ())
    assert report.size == "ViT-S/14 at 518 pixels with layer scale"
    assert (report.missing, report.extra, report.resized) == ((), (), "")
    with jax.default_matmul_precision("highest"):
        found = jax.jit(VisionTransformer(VIT).apply)({"params": params["backbone"]}, images)
    patches = np.asarray(found.patches).reshape(-1, VIT.width)
    tokens = np.concatenate([found.cls, patches])[RECORDED["tokens"], :8]
    np.testing.assert_allclose(tokens, RECORDED["features"][size], atol=1e-4)
