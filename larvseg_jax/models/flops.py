"""FLOPs of the networks by formula, as methods/*/flops.py add them up; its conventions: methods/larvseg/flops.py."""

from __future__ import annotations

from collections import Counter

from larvseg_jax.models.frozen import Moving
from larvseg_jax.models.vit_config import ViTConfig

BOTH_LEARNT, ONE_LEARNT, NO_GRADIENT = 3, 2, 1
"""Times the forward pass: products whose gradient goes to both factors, to one, to none."""

BACKBONE = ("stem", "position_embedding", "qkv", "attention", "attention_out", "mlp")
"""The parts of the backbone, which compute in `model.dtype`; all else is in three bfloat16 passes (precision.py)."""


def backbone_flops(vit: ViTConfig, images: int, side: int, frozen: str = "", first: int = 0) -> dict[str, int]:
    """The ViT on square pictures of `side` pixels.

    Args:
      vit: sizes.
      images: how many.
      side: of the pictures, pixels.
      frozen: regular expression on the paths of the parameters that do not move: they get no gradient, and none goes
        further down than to the lowest one that moves.
      first: the block that the step begins with, the tokens which enter it being given; 0: with the pictures.
    """
    d, grid = vit.width, -(-side // vit.patch_size)
    patches = grid * grid
    tokens = images * (patches + vit.leading_tokens)
    moving = Moving(vit, frozen)
    times = _block_passes(vit, moving, first)
    resized = (grid, grid) != vit.stored_grid
    positions = resize_flops(vit.stored_grid[0], grid, d) if resized and not first else 0
    return {
        "stem": 0 if first else _stem_flops(vit, images, grid, moving),
        "position_embedding": (1 + moving("Transformer/posembed_input/")) * positions,
        "qkv": times["qkv"] * product_flops(tokens, d, d),
        "attention": times["attention"] * product_flops(tokens, d, patches + vit.leading_tokens),
        "attention_out": times["attention_out"] * product_flops(tokens, d, d),
        "mlp": times["mlp"] * product_flops(tokens, d, vit.mlp_dim),
    }


def _block_passes(vit: ViTConfig, moving: Moving, first: int) -> Counter[str]:
    """How many products of each part's size a step has, over all blocks from `first` on.

    One forward, and one for each factor that has a gradient: a kernel that moves, features that depend on what moves.
    """
    times: Counter[str] = Counter()
    learnt = moving.below_block(first)  # whether the tokens that enter the block are
    for i in range(first, vit.depth):
        block = f"Transformer/encoderblock_{i}"
        attention, mlp = f"{block}/MultiHeadDotProductAttention_1", f"{block}/MlpBlock_3"
        projections = ("query", "key", "value")
        normed = learnt or moving(f"{block}/LayerNorm_0/")
        times["qkv"] += sum(1 + normed + moving(f"{attention}/{name}/kernel") for name in projections)
        query, key, value = (normed or moving(f"{attention}/{name}/") for name in projections)
        times["attention"] += (1 + query + key) + (1 + (query or key) + value)  # scores, and their sums of values
        mixed = query or key or value
        times["attention_out"] += 1 + mixed + moving(f"{attention}/out/kernel")
        learnt = mixed or moving(f"{attention}/out/") or moving(f"{block}/attention_scale")
        hidden = learnt or moving(f"{block}/LayerNorm_2/")
        # SwiGLU's first layer has two outputs for each of its second one's inputs.
        for name, size in (("Dense_0", 2 if vit.mlp == "swiglu" else 1), ("Dense_1", 1)):
            times["mlp"] += size * (1 + hidden + moving(f"{mlp}/{name}/kernel"))
            hidden = hidden or moving(f"{mlp}/{name}/")
        learnt = hidden or moving(f"{block}/mlp_scale")
    return times


def _stem_flops(vit: ViTConfig, images: int, grid: int, moving: Moving) -> int:
    """No gradient goes to the pictures, so the first layer's is one product less."""
    if vit.stem == "patch":
        times = 1 + moving("embedding/kernel")
        return times * images * product_flops(grid * grid, 3 * vit.patch_size**2, vit.width)
    halvings, total, before, learnt = vit.patch_size.bit_length() - 1, 0, 3, False
    for i in range(halvings):
        features, side = vit.width >> (halvings - 1 - i), grid << (halvings - 1 - i)
        times = 1 + learnt + moving(f"stem/conv_{i}/kernel")
        total += times * images * product_flops(side * side, 9 * before, features)
        learnt = learnt or moving(f"stem/conv_{i}/") or moving(f"stem/norm_{i}/")
        before = features
    times = 1 + learnt + moving("stem/out/kernel")
    return total + times * images * product_flops(grid * grid, before, vit.width)


def resize_flops(old: int, new: int, channels: int) -> int:
    """One map of old x old to new x new: columns first, then rows."""
    return product_flops(new, old, old * channels) + product_flops(new, old, new * channels)


def product_flops(rows: int, inner: int, columns: int) -> int:
    """A (rows, inner) matrix times an (inner, columns) one."""
    return 2 * rows * inner * columns
