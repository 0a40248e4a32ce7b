"""Softmax attention written for CPUs: head by head for a single device, all heads at once for several.

Letters: b pictures, n tokens, k heads, e features of a head, h = b*k heads of all pictures.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def attention_of_all_heads(
    query: Float[Array, "b n k e"],
    key: Float[Array, "b n k e"],
    value: Float[Array, "b n k e"],
    *,
    causal: bool = False,
) -> Float[Array, "b n k e"]:
    """softmax(q k^T / sqrt(e)) v per head, all heads in one product: splits over devices by pictures."""
    scores = jnp.einsum("bqke,bske->bkqs", query, key).astype(jnp.float32) * query.shape[-1] ** -0.5
    if causal:
        seen = jnp.tril(jnp.ones(scores.shape[-2:], bool))
        scores = jnp.where(seen[None, None], scores, -jnp.inf)
    return jnp.einsum("bkqs,bske->bqke", jax.nn.softmax(scores).astype(value.dtype), value)


class _Kept(NamedTuple):
    """What the backward pass of `attention_head_by_head` needs: no map of n x n. The query is scaled."""

    query: Float[Array, "h n e"]
    key: Float[Array, "h n e"]
    value: Float[Array, "h n e"]
    mixed: Float[Array, "b n k e"]
    log_sum: Float[Array, "h n"]


@jax.custom_vjp
def attention_head_by_head(
    query: Float[Array, "b n k e"], key: Float[Array, "b n k e"], value: Float[Array, "b n k e"]
) -> Float[Array, "b n k e"]:
    """The same in a loop over (picture, head), one map of n x n alive at a time, in the backward pass too."""
    return _forward(query, key, value)[0]


def _forward(
    query: Float[Array, "b n k e"], key: Float[Array, "b n k e"], value: Float[Array, "b n k e"]
) -> tuple[Float[Array, "b n k e"], _Kept]:
    def one_head(head: tuple[Array, Array, Array]) -> tuple[Float[Array, "n e"], Float[Array, " n"]]:
        q, k, v = head
        scores = _product(q, k.T)
        largest = jnp.max(scores, axis=-1, keepdims=True)
        weights = jnp.exp(scores - largest)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        # Divided after the product with v: n x e numbers instead of n x n.
        return (_product(weights.astype(v.dtype), v) / total).astype(v.dtype), (largest + jnp.log(total))[:, 0]

    heads = _heads(query * query.shape[-1] ** -0.5), _heads(key), _heads(value)
    mixed, log_sum = lax.map(one_head, heads)
    mixed = _pictures(mixed, query.shape[0])
    return mixed, _Kept(*heads, mixed, log_sum)


def _backward(
    kept: _Kept, gradient: Float[Array, "b n k e"]
) -> tuple[Float[Array, "b n k e"], Float[Array, "b n k e"], Float[Array, "b n k e"]]:
    """With W = softmax(S): dS = W * (dW - its row's sum of W * dW), which also is the sum of out times its gradient.

    The maps are made transposed (keys in rows), so that two of the three products that follow need no
    transposing; W comes from the kept log-sum-exp in one pass.
    """
    b, n, k, e = gradient.shape
    inner = jnp.sum(kept.mixed.astype(jnp.float32) * gradient.astype(jnp.float32), axis=-1)
    inner = inner.transpose(0, 2, 1).reshape(b * k, n)

    def one_head(head: tuple[Array, ...]) -> tuple[Float[Array, "e n"], Float[Array, "n e"], Float[Array, "n e"]]:
        q, k, v, g, log_sum, inner = head
        weights = jnp.exp(_product(k, q.T) - log_sum[None])
        to_scores = (weights * (_product(v, g.T) - inner[None])).astype(q.dtype)
        to_query, to_key = _product(k.T, to_scores), _product(to_scores, q)
        return to_query.astype(q.dtype), to_key.astype(k.dtype), _product(weights.astype(g.dtype), g).astype(v.dtype)

    heads = kept.query, kept.key, kept.value, _heads(gradient), kept.log_sum, inner
    to_query, to_key, to_value = lax.map(one_head, heads)
    return _pictures(to_query.swapaxes(1, 2), b) * e**-0.5, _pictures(to_key, b), _pictures(to_value, b)


attention_head_by_head.defvjp(_forward, _backward)


def _product(a: Float[Array, "i j"], b: Float[Array, "j k"]) -> Float[Array, "i k"]:
    return jnp.matmul(a, b, preferred_element_type=jnp.float32)


def _heads(x: Float[Array, "b n k e"]) -> Float[Array, "h n e"]:
    b, n, k, e = x.shape
    return x.transpose(0, 2, 1, 3).reshape(b * k, n, e)


def _pictures(x: Float[Array, "h n e"], pictures: int) -> Float[Array, "b n k e"]:
    h, n, e = x.shape
    return x.reshape(pictures, h // pictures, n, e).transpose(0, 2, 1, 3)
