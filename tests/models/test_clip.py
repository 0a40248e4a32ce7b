"""CLIP's towers: what texts depend on, what fresh parameters are like, what pooling means."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from larvseg_jax.errors import UserError
from larvseg_jax.models.any_device import on_any_device
from larvseg_jax.models.attention import dot_product_attention
from larvseg_jax.models.blocks import quick_gelu
from larvseg_jax.models.clip import Clip, contrastive_logits, fresh_parameters, pooled
from larvseg_jax.models.text import TextConfig
from larvseg_jax.models.vit_config import ViTConfig

VIT = ViTConfig(
    64, 2, 4, 256, patch_size=4, image_size=16, mlp="quick_gelu", pixels="clip", norm_before=True, patch_bias=False
)
TEXT = TextConfig(48, 2, 3, 192)
MODEL = Clip(VIT, TEXT, width=20, vocabulary=50, context=12)
PARAMS = fresh_parameters(MODEL, jax.random.key(0))


def texts(ids):
    return np.asarray(MODEL.apply({"params": PARAMS}, jnp.asarray(ids, jnp.int32), method=Clip.texts))


def test_what_stands_behind_the_end_plays_no_role():
    ids = [48, 3, 7, 49, 0, 0]
    other = [48, 3, 7, 49, 5, 49]
    np.testing.assert_array_equal(texts([ids]), texts([other]))
    np.testing.assert_allclose(texts([ids]), texts([ids[:4]]), atol=1e-6)
    assert np.abs(texts([ids]) - texts([[48, 7, 3, 49, 0, 0]])).max() > 0.01
    with pytest.raises(UserError, match="a text of 13 ids does not fit a context of 12"):
        texts([[0] * 13])


@pytest.mark.parametrize("on_cpu", ["head_by_head", "all_heads", "as_on_other_devices"])
def test_causal_attention_by_hand(on_cpu):
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(2, 5, 3, 4)).astype(np.float32) for _ in range(3))
    expected = np.zeros_like(v)
    for b, n, h in np.ndindex(2, 5, 3):
        weights = np.exp(k[b, : n + 1, h] @ q[b, n, h] / 2)
        expected[b, n, h] = weights / weights.sum() @ v[b, : n + 1, h]
    if on_cpu == "as_on_other_devices":
        with on_any_device("plain"):
            found = dot_product_attention(*map(jnp.asarray, (q, k, v)), "all_heads", causal=True)
    else:
        found = dot_product_attention(*map(jnp.asarray, (q, k, v)), on_cpu, causal=True)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_quick_gelu_by_hand():
    x = np.linspace(-4, 4, 9, dtype=np.float32)[None]
    np.testing.assert_allclose(quick_gelu(jnp.asarray(x)), x / (1 + np.exp(-1.702 * x)), rtol=1e-5)


def test_fresh_parameters_have_clips_deviations():
    flat = {name: np.asarray(x) for name, x in traverse_util.flatten_dict(PARAMS, sep="/").items()}
    attention, mlp = "encoderblock_1/MultiHeadDotProductAttention_1", "encoderblock_1/MlpBlock_3"
    deviations = {
        "image_projection": 64**-0.5,
        "text_projection": 48**-0.5,
        "backbone/Transformer/posembed_input/pos_embedding": 64**-0.5,
        f"backbone/Transformer/{attention}/query/kernel": 128**-0.5,
        f"backbone/Transformer/{attention}/out/kernel": 192**-0.5,
        f"backbone/Transformer/{mlp}/Dense_1/kernel": 768**-0.5,
        "backbone/embedding/kernel": 144**-0.5,
        "text/token_embedding": 0.02,
        "text/positional_embedding": 0.01,
        f"text/{attention}/value/kernel": 48**-0.5,
        f"text/{attention}/out/kernel": 48**-0.5 / 2,
        f"text/{mlp}/Dense_0/kernel": 96**-0.5,
        f"text/{mlp}/Dense_1/kernel": 48**-0.5 / 2,
    }
    for name, deviation in deviations.items():
        assert np.std(flat[name]) == pytest.approx(deviation, rel=0.1), name
    assert flat["logit_scale"] == pytest.approx(2.6593, abs=1e-4)
    assert "backbone/embedding/bias" not in flat
    assert not np.array_equal(*(flat[f"text/{attention}/{part}/kernel"] for part in ("query", "key")))


def test_pooling_takes_the_class_token_or_the_mean_of_the_patches():
    images = jax.random.normal(jax.random.key(1), (2, 16, 12, 3))
    embedded, _ = MODEL.apply({"params": PARAMS}, images, jnp.zeros((1, 2), jnp.int32))
    assert embedded.patches.shape == (2, 4, 3, 20)
    np.testing.assert_array_equal(pooled(embedded, "cls"), embedded.cls)
    np.testing.assert_allclose(pooled(embedded, "mean"), np.mean(embedded.patches, (1, 2)), atol=1e-6)
    logits = contrastive_logits(embedded.cls, embedded.cls, jnp.asarray(100.0))
    np.testing.assert_allclose(np.diag(logits), 100, rtol=1e-5)


def test_the_scale_of_the_logits_is_at_most_100():
    huge = PARAMS | {"logit_scale": jnp.asarray(9.0)}
    assert float(MODEL.apply({"params": huge}, method=Clip.scale)) == pytest.approx(100)


def test_options_that_are_new_and_unused_are_not_recorded():
    assert {"norm_before", "patch_bias"}.isdisjoint(ViTConfig().recorded())
    assert VIT.recorded()["norm_before"] is True
    assert VIT.recorded()["patch_bias"] is False
