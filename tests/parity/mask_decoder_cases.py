"""masked_decoder_*, pixel_decoder_*, deformable_attention_*, sine_position_*: Mask2Former's decoders.

Tolerances are those of the files' own README: of the largest entry, gradients 1e-4.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from larvseg_jax.models.mask_decoder.decoder import MaskedDecoder
from larvseg_jax.models.mask_decoder.deformable import sampled
from larvseg_jax.models.mask_decoder.msdeform import MsDeformPixelDecoder
from larvseg_jax.models.mask_decoder.position import sine_position
from larvseg_jax.models.mask_decoder.weights import decoder_parameters, pixel_decoder_parameters
from larvseg_jax.models.resize import resize_bilinear
from tests.parity.golden import Golden, channels_first, channels_last
from tests.parity.table import Report

GRADIENT = 1e-4


def check_masked_decoder(report: Report, golden: Golden) -> None:
    """States and masks of every output, and which queries would see nothing; finite gradients."""
    model, params = decoder_of(golden)
    scales = tuple(jnp.asarray(channels_last(golden[f"in/scale_{i}"])) for i in range(3))
    mask_features = jnp.asarray(channels_last(golden["in/mask_features"]))

    @jax.jit
    def decoded(params, scales, mask_features):
        def said(params, *given):
            out = model.apply({"params": params}, *given)
            return out.states, out.masks

        out, pull = jax.vjp(said, params, scales, mask_features)
        return out, pull(jax.tree.map(jnp.ones_like, out))

    (states, masks), gradients = decoded(params, scales, mask_features)
    for i in range(model.layers + 1):
        report.array("states", states[i], golden[f"out/state_{i}"].swapaxes(0, 1))
        report.array("mask_logits", masks[i], golden[f"out/mask_logits_{i}"])
    empty = []
    for i in range(model.layers):
        logits = resize_bilinear(masks[i][..., None], scales[i % 3].shape[1:3])
        empty.append(np.sum(np.all(np.asarray(logits) < 0, axis=(2, 3, 4))))
    report.exact("empty_rows", empty, golden["out/empty_rows"])
    report.exact("gradients not finite", sum(np.sum(~np.isfinite(x)) for x in jax.tree.leaves(gradients)), 0)


def decoder_of(golden: Golden) -> tuple[MaskedDecoder, dict]:
    """The decoder of a file's sizes and its parameters."""
    hidden, heads, mlp, layers, queries = map(int, golden["cfg/hidden_heads_ffn_layers_queries"])
    model = MaskedDecoder(hidden, heads, mlp, layers, queries, golden["in/mask_features"].shape[1])
    return model, jax.tree.map(jnp.asarray, decoder_parameters(golden.part("w/"), heads))


def check_sine_position(report: Report, golden: Golden) -> None:
    """The position embedding of a map."""
    features, height, width = map(int, golden["in/shape"])
    ours = channels_first(sine_position(height, width, features))
    report.array("embedding", ours, golden["out/embedding"])


def check_deformable_attention(report: Report, golden: Golden) -> None:
    """Sums of values at points, and the gradients of their weighted sum."""
    sides = tuple(tuple(map(int, side)) for side in golden["in/spatial_shapes"])
    given = tuple(jnp.asarray(golden[f"in/{name}"]) for name in ("value", "locations", "weights"))

    @jax.jit
    def summed(value, locations, weights, cotangent):
        out, pull = jax.vjp(lambda *given: sampled(given[0], sides, *given[1:]), value, locations, weights)
        return out, pull(cotangent)

    out, gradients = summed(*given, jnp.asarray(golden["in/cotangent"]))
    report.array("output", out, golden["out/output"])
    for name, gradient in zip(("value", "locations", "weights"), gradients, strict=True):
        report.array(f"grad_{name}", gradient, golden[f"grad/{name}"], GRADIENT)


def check_pixel_decoder(report: Report, golden: Golden) -> None:
    """The three scales and the mask features."""
    hidden, heads, mlp, layers = map(int, golden["cfg/hidden_heads_ffn_layers"])
    model = MsDeformPixelDecoder(hidden, heads, mlp, layers, golden["out/mask_features"].shape[1])
    params = jax.tree.map(jnp.asarray, pixel_decoder_parameters(golden.part("w/")))
    maps = tuple(jnp.asarray(channels_last(golden[f"in/res{i}"])) for i in range(2, 6))
    out = jax.jit(model.apply)({"params": params}, maps)
    for i, scale in enumerate(out.scales):
        report.array("scales", channels_first(scale), golden[f"out/scale_{i}"])
    report.array("mask_features", channels_first(out.mask_features), golden["out/mask_features"])


MASK_DECODER_CASES = {
    "deformable_attention": check_deformable_attention,
    "masked_decoder": check_masked_decoder,
    "pixel_decoder": check_pixel_decoder,
    "sine_position": check_sine_position,
}
