"""The options of the backbone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

from larvseg_jax.errors import UserError
from larvseg_jax.models.pixels import Pixels
from larvseg_jax.options import Count, CountOrNone

_NEWER = {"norm_before": False, "patch_bias": True}  # options that earlier versions did not have, with what they did


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """The section `model`: sizes of the backbone, by default those of ViT-B/16."""

    width: Count = 768  # features of a token
    depth: Count = 12  # blocks
    num_heads: Count = 12
    mlp_dim: Count = 3072  # hidden width of the MLP of a block
    patch_size: Count = 16  # side of a patch, pixels
    image_size: Count = 512  # side of the pictures that the position embedding is stored for, pixels
    stem: Literal["patch", "conv"] = "patch"  # one patch convolution, or 3x3 ones that halve (better from scratch)
    drop_path: float = 0.0  # chance that the last block's branches are skipped; earlier blocks less
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the backbone's computation; parameters stay float32
    remat: bool = False  # compute the blocks' activations again in the backward pass: less memory, more time
    layer_norm_epsilon: float = 1e-6  # added to the variance in every LayerNorm; AugReg weights: 1e-6
    class_token: bool = True  # a token of no patch in front of the others
    registers: CountOrNone = 0  # further tokens of no patch behind the class token, without a position; 0: none
    layer_scale: bool = False  # what attention and MLP of a block add is multiplied by a learnt vector (DINOv2)
    # swiglu: silu(a) * b of two hidden layers, each of mlp_dim (DINOv2's g); quick_gelu: z sigmoid(1.702 z) (CLIP)
    mlp: Literal["gelu", "swiglu", "quick_gelu"] = "gelu"
    # How the position embedding is resized: as the original does, or as Pillow does (DINOv2 with registers, timm).
    position_resize: Literal["bicubic", "antialiased"] = "bicubic"
    # How the network's pixels are normalised: by ImageNet's mean and std as those of the batches (the original, even
    # with AugReg weights), to -1 ... 1 (AugReg), or by CLIP's mean and std. It maps what it is given itself.
    pixels: Pixels = "imagenet"
    norm_before: bool = False  # a norm of all tokens before the first block (CLIP)
    patch_bias: bool = True  # the patch convolution adds a bias (not CLIP's)

    def __post_init__(self) -> None:
        if self.width % self.num_heads:
            raise UserError(f"model.width={self.width} is not a multiple of model.num_heads={self.num_heads}")
        if self.stem == "conv" and self.patch_size.bit_count() != 1:
            raise UserError(f"model.patch_size={self.patch_size}: the conv stem halves, so it must be a power of 2")
        if not 0 < self.layer_norm_epsilon < math.inf:
            raise UserError(
                f"model.layer_norm_epsilon is {self.layer_norm_epsilon}: use a number above 0, such as 1e-6"
            )
        if self.stem == "conv" and not self.patch_bias:
            raise UserError("model.patch_bias=False is of the patch convolution: it does not go with the conv stem")

    def recorded(self) -> dict[str, Any]:
        """The options as records have them."""
        return recorded(dataclasses.asdict(self))

    @property
    def leading_tokens(self) -> int:
        """How many tokens stand before those of the patches."""
        return self.class_token + self.registers

    @property
    def stored_grid(self) -> tuple[int, int]:
        """Patch grid that the position embedding is stored for."""
        side = -(-self.image_size // self.patch_size)
        return side, side


def recorded(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a backbone as records have them: without those that are newer and not in use.

    So a run of earlier code, or its features, is not taken for one of another backbone.
    """
    return {name: value for name, value in options.items() if name not in _NEWER or value != _NEWER[name]}
