"""What a run leaves as it is: parameters whose paths `optimizer.frozen` finds get no gradient and do not move."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import PyTree

from larvseg_jax.devices.sharding import path_name
from larvseg_jax.errors import UserError
from larvseg_jax.methods.method import Batch, Method
from larvseg_jax.models.pixels import normalised_batch


def frozen_parts(frozen: str, params: PyTree) -> PyTree:
    """Whether each parameter is frozen: a bool for every leaf.

    Raises:
      UserError: the regular expression finds no parameter, or it finds all of them.
    """
    found = jax.tree_util.tree_map_with_path(
        lambda path, _: bool(frozen) and re.search(frozen, path_name(path)) is not None, params
    )
    leaves = jax.tree.leaves(found)
    if frozen and not any(leaves):
        close = " or ".join(map(repr, _close_paths(frozen, params)))
        raise UserError(
            f"optimizer.frozen={frozen!r} finds no parameter: their paths begin like {close} (or '' to freeze nothing)"
        )
    if frozen and all(leaves):
        raise UserError(f"optimizer.frozen={frozen!r} finds every parameter: leave some that learn")
    return found


def _close_paths(frozen: str, params: PyTree) -> list[str]:
    """Paths, and beginnings of paths, that are spelt like a regular expression; else the shortest ones."""
    paths = [path_name(path).split("/") for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    beginnings = dict.fromkeys("/".join(path[:length]) for path in paths for length in range(1, len(path) + 1))
    plain = re.sub(r"[^\w/]", "", re.sub(r"\\.", "", frozen)).strip("/")
    return difflib.get_close_matches(plain, beginnings, n=3) or sorted({path[0] for path in paths})


def gradient_of_moving(method: Method, frozen: str) -> Callable[..., Any]:
    """`jax.value_and_grad` of a method's loss: (params, memory, batch, key) -> ((loss, aux), gradient).

    Pictures of levels in the batch are normalised first. No gradient is computed for what is frozen, nor for what lies
    below the lowest parameter that moves; it is 0 there.
    """

    def loss(params: PyTree, memory: PyTree, batch: Batch, key: jax.Array) -> Any:
        held = jax.tree.map(
            lambda still, x: jax.lax.stop_gradient(x) if still else x, frozen_parts(frozen, params), params
        )
        seen = {stream: normalised_batch(arrays) for stream, arrays in batch.items()}
        return method.loss(held, memory, seen, key)

    return jax.value_and_grad(loss, has_aux=True)


def keep_frozen(frozen: str, before: PyTree, after: PyTree) -> PyTree:
    """The parameters after an update, those that are frozen bit by bit as they were (adding 0 would change a -0)."""
    return jax.tree.map(lambda still, old, new: old if still else new, frozen_parts(frozen, before), before, after)


def describe_parameters(frozen: str, params: PyTree) -> str:
    """How many there are: "1,234 parameters", or "1,234 parameters, 34 of which move and 1,200 are frozen"."""
    sizes = jax.tree.map(lambda x: x.size, params)
    total = sum(jax.tree.leaves(sizes))
    still = sum(jax.tree.leaves(jax.tree.map(lambda part, size: part * size, frozen_parts(frozen, params), sizes)))
    return f"{total:,} parameters" + (f", {total - still:,} of which move and {still:,} are frozen" if frozen else "")
