"""masked_decoder_*, pixel_decoder_*, deformable_attention_*, sine_position_*: Mask2Former's decoders.

Tolerances are those of the files' own README: of the largest entry, gradients 1e-4.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from larvseg_jax.models.mask_decoder.decoder import Decoded, MaskedDecoder
from larvseg_jax.models.mask_decoder.position import sine_position
from larvseg_jax.models.mask_decoder.weights import decoder_parameters
from larvseg_jax.models.resize import resize_bilinear
from tests.parity.golden import Golden, channels_first, channels_last
from tests.parity.table import Report


def check_masked_decoder(report: Report, golden: Golden) -> None:
    """States and masks of every output, and which queries would see nothing; finite gradients."""
    model, params = decoder_of(golden)
    scales = tuple(jnp.asarray(channels_last(golden[f"in/scale_{i}"])) for i in range(3))
    mask_features = jnp.asarray(channels_last(golden["in/mask_features"]))

    @jax.jit
    def decoded(params, scales, mask_features) -> tuple[Decoded, tuple]:
        out, pull = jax.vjp(lambda *given: model.apply({"params": given[0]}, *given[1:]), params, scales, mask_features)
        return out, pull(Decoded(jnp.ones_like(out.states), jnp.ones_like(out.masks)))

    out, gradients = decoded(params, scales, mask_features)
    for i in range(model.layers + 1):
        report.array("states", out.states[i], golden[f"out/state_{i}"].swapaxes(0, 1))
        report.array("mask_logits", out.masks[i], golden[f"out/mask_logits_{i}"])
    empty = []
    for i in range(model.layers):
        logits = resize_bilinear(out.masks[i][..., None], scales[i % 3].shape[1:3])
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


MASK_DECODER_CASES = {
    "masked_decoder": check_masked_decoder,
    "sine_position": check_sine_position,
}
