"""FLOPs of the networks by formula, as methods/*/flops.py add them up; its conventions: methods/larvseg/flops.py."""

from __future__ import annotations

from larvseg_jax.models.vit import ViTConfig

BOTH_LEARNT, ONE_LEARNT, NO_GRADIENT = 3, 2, 1
"""Times the forward pass: products whose gradient goes to both factors, to one, to none."""

BACKBONE = ("stem", "position_embedding", "qkv", "attention", "attention_out", "mlp")
"""The parts of the backbone, which compute in `model.dtype`; all else is in full float32."""


def backbone_flops(vit: ViTConfig, images: int, side: int) -> dict[str, int]:
    """The ViT on square pictures of `side` pixels."""
    d, grid = vit.width, -(-side // vit.patch_size)
    patches = grid * grid
    tokens = images * (patches + vit.leading_tokens)
    blocks = BOTH_LEARNT * vit.depth
    return {
        "stem": _stem_flops(vit, images, grid),
        "position_embedding": 0
        if (grid, grid) == vit.stored_grid
        else ONE_LEARNT * resize_flops(vit.stored_grid[0], grid, d),
        "qkv": blocks * 3 * product_flops(tokens, d, d),
        "attention": blocks
        * 2
        * product_flops(tokens, d, patches + vit.leading_tokens),  # scores, and their sums of values
        "attention_out": blocks * product_flops(tokens, d, d),
        # SwiGLU's first layer has two outputs for each of its second one's inputs.
        "mlp": blocks * (3 if vit.mlp == "swiglu" else 2) * product_flops(tokens, d, vit.mlp_dim),
    }


def _stem_flops(vit: ViTConfig, images: int, grid: int) -> int:
    """No gradient goes to the pictures, so the first layer's is one product less."""
    if vit.stem == "patch":
        return ONE_LEARNT * images * product_flops(grid * grid, 3 * vit.patch_size**2, vit.width)
    halvings, total, before = vit.patch_size.bit_length() - 1, 0, 3
    for i in range(halvings):
        features, side = vit.width >> (halvings - 1 - i), grid << (halvings - 1 - i)
        times = BOTH_LEARNT if i else ONE_LEARNT
        total += times * images * product_flops(side * side, 9 * before, features)
        before = features
    return total + BOTH_LEARNT * images * product_flops(grid * grid, before, vit.width)


def resize_flops(old: int, new: int, channels: int) -> int:
    """One map of old x old to new x new: columns first, then rows."""
    return product_flops(new, old, old * channels) + product_flops(new, old, new * channels)


def product_flops(rows: int, inner: int, columns: int) -> int:
    """A (rows, inner) matrix times an (inner, columns) one."""
    return 2 * rows * inner * columns
