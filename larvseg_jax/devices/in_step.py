"""For code inside a compiled step: which axis of an array is split over which axis of the mesh, and sums over shards.

All of it acts where the step is traced under `jax.set_mesh(mesh)`; elsewhere (tests, one picture at a time) arrays
are left as they are and a function is called once, for all classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax import lax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Int, PyTree

from larvseg_jax.devices.mesh import BY_CLASS, BY_PICTURE, WHOLE

T = TypeVar("T")


def constrain(x: Array, *axes: str | None) -> Array:
    """`x` with its axes split over the mesh axes named; None: not split."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return lax.with_sharding_constraint(x, PartitionSpec(*axes))


def kernels_can_split() -> bool:
    """Whether every device can have a kernel for its own pictures: a mesh is set, or there is one device only."""
    return not jax.sharding.get_abstract_mesh().empty or jax.device_count() == 1


def by_picture(function: Callable[[Any], T], pictures: PyTree) -> T:
    """function(pictures), made by every device for its own pictures: for a kernel, which XLA cannot split itself.

    First axes: pictures of `pictures` and of the result. Gradients go through.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return function(pictures)
    # The gradient is summed over an axis that is not named, and a sum over one device is still a copy.
    split = PartitionSpec(("data", "model")) if mesh.shape["model"] == 1 else BY_PICTURE
    return jax.shard_map(function, in_specs=(split,), out_specs=split, check_vma=False)(pictures)


def sum_over_class_shards(function: Callable[[Any, Any], T], pictures: PyTree, classes: PyTree) -> T:
    """function(pictures, classes), a sum over classes, made by every device for its own pictures and classes.

    Only the sums travel. First axes: pictures of `pictures` and of the result, classes of `classes`.
    No gradient goes through.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return function(pictures, classes)

    def own(pictures: PyTree, classes: PyTree) -> T:
        return lax.psum(function(pictures, classes), "model")

    return jax.shard_map(own, in_specs=(BY_PICTURE, BY_CLASS), out_specs=BY_PICTURE, check_vma=False)(pictures, classes)


def on_class_shards(function: Callable[[T, Int[Array, ""], Any], T], by_class: T, everywhere: PyTree) -> T:
    """function(by_class, first, everywhere), made by every device for its own classes; `first` is the first one's row.

    `everywhere` goes whole to every device; the result is split by class as `by_class` is. No gradient goes through.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return function(by_class, jax.numpy.zeros((), "int32"), everywhere)

    def own(by_class: T, everywhere: PyTree) -> T:
        classes = jax.tree.leaves(by_class)[0].shape[0]
        return function(by_class, lax.axis_index("model") * classes, everywhere)

    return jax.shard_map(own, in_specs=(BY_CLASS, WHOLE), out_specs=BY_CLASS, check_vma=False)(by_class, everywhere)
