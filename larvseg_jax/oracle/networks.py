"""What a network makes of a photo: the features of its blocks, and what a run has learnt to make of the last ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import Array, Float, Float32, PyTree

from larvseg_jax.config import Experiment, network_sections
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.errors import UserError
from larvseg_jax.models.attention_choice import device_attention
from larvseg_jax.models.cosine_head import unit
from larvseg_jax.models.partial import patches_after
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.oracle.counting import Embed
from larvseg_jax.start import first_params
from larvseg_jax.trained import Trained

PROJECTED = "projected"
"""What the unit features are called that a run's method compares with its classes."""


@dataclasses.dataclass(frozen=True)
class Features:
    """Kinds of features of a photo.

    Attributes:
      names: what each kind is called, "block 4".
      embed: photo -> unit patch features of each kind.
    """

    names: tuple[str, ...]
    embed: Embed

    def beside(self, other: Features) -> Features:
        """These and those of another network."""
        return Features((*self.names, *other.names), lambda image: (*self.embed(image), *other.embed(image)))


def of_backbone(run: Experiment, blocks: str) -> tuple[Features, str]:
    """Features of the weights that a training of the run would begin with, and where these come from.

    Those after some blocks ("all", "4,8,12"; "" is the last one), each through the backbone's final norm. There is no
    projection: nothing was trained that it could come from.
    """
    chosen = chosen_blocks(blocks, run.vit.depth) or (run.vit.depth,)
    params, story = first_params(run, make_mesh(1, 1, jax.devices()[:1]))
    embed = _whole_patches(_blocks(run.vit, chosen), params["backbone"], run.vit.patch_size)
    return Features(_names(chosen), embed), story


def of_run(trained: Trained, blocks: str) -> Features:
    """Features of a run: those after some blocks ("": none), and those that its method compares with its classes.

    These are the last of the names, and a forward pass of their own.
    """
    vit = network_sections(trained.settings)[1]
    chosen = chosen_blocks(blocks, vit.depth)
    projected = Features(
        (PROJECTED,),
        _whole_patches(lambda params, images: (trained.method.embed(params, images),), trained.params, vit.patch_size),
    )
    if not chosen:
        return projected
    if "backbone" not in trained.params:
        raise UserError(f"--blocks={blocks}: the method of {trained.source} has no parameters backbone/: leave it out")
    after = _whole_patches(_blocks(vit, chosen), trained.params["backbone"], vit.patch_size)
    return Features(_names(chosen), after).beside(projected)


def chosen_blocks(text: str, depth: int) -> tuple[int, ...]:
    """The blocks that "all" or "4,8,12" names, ascending, 1 being the first; none of "".

    UserError if that is neither, or the network has not so many.
    """
    if text in ("", "all"):
        return tuple(range(1, depth + 1)) if text else ()
    try:
        chosen = tuple(sorted({int(word) for word in text.split(",")}))
    except ValueError:
        chosen = (0,)
    if not 1 <= chosen[0] <= chosen[-1] <= depth:
        raise UserError(f"--blocks={text}: use all, or some of 1 to {depth} separated by commas")
    return chosen


def _names(blocks: Sequence[int]) -> tuple[str, ...]:
    return tuple(f"block {block}" for block in blocks)


Compute = Callable[[PyTree, Float[Array, "b height width 3"]], tuple[Float[Array, "b h w d"], ...]]


def _blocks(vit: ViTConfig, blocks: Sequence[int]) -> Compute:
    config, attention = dataclasses.replace(vit, remat=False), device_attention(vit, jax.devices()[:1])

    def compute(params: PyTree, images: Float[Array, "b height width 3"]) -> tuple[Float[Array, "b h w d"], ...]:
        return tuple(unit(patches) for patches in patches_after(blocks, config, attention, params, images))

    return compute


def _whole_patches(compute: Compute, params: PyTree, patch: int) -> Embed:
    """A network as a function of one photo, on one device.

    A photo is filled up with zeros (the mean colour) to whole patches, no further: attention would see the
    rest. So every patch grid is a program of its own, compiled when first met; photos of a few aspect ratios
    have a few dozen.
    """
    compiled = jax.jit(compute)

    def embed(image: Float32[np.ndarray, "height width 3"]) -> tuple[Float32[np.ndarray, "h w _d"], ...]:
        missing = [(0, -side % patch) for side in image.shape[:2]]
        found = compiled(params, np.pad(image, [*missing, (0, 0)])[None])
        return tuple(np.asarray(patches[0]) for patches in found)

    return embed
