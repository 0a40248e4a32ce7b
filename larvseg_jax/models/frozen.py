"""A backbone of which a part is frozen: what of it moves, and how far up from the pictures nothing does."""

from __future__ import annotations

import re

import jax

from larvseg_jax.devices.sharding import path_name
from larvseg_jax.models.vit import VisionTransformer
from larvseg_jax.models.vit_config import ViTConfig

_BLOCK = re.compile(r"Transformer/encoderblock_(\d+)/")
_FINAL_NORM = "Transformer/encoder_norm/"


class Moving:
    """The parameters of a backbone that a regular expression on their paths ("backbone/cls") does not find.

    Called with the beginning of a path inside the backbone ("Transformer/encoderblock_0/"), it says whether any
    parameter there moves; "" asks for all of them.
    """

    def __init__(self, config: ViTConfig, frozen: str) -> None:
        """`frozen`: the regular expression, as `optimizer.frozen` has it; "" finds nothing."""
        self._depth = config.depth
        self._names: tuple[str, ...] | None = None  # all of them: their names need not be known
        if frozen:
            side = config.patch_size
            picture = jax.ShapeDtypeStruct((1, side, side, 3), "float32")
            shapes = jax.eval_shape(VisionTransformer(config).init, jax.random.key(0), picture)["params"]
            names = (path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes))
            self._names = tuple(name for name in names if not re.search(frozen, f"backbone/{name}"))

    def __call__(self, beginning: str) -> bool:
        """Whether any parameter moves whose path begins so."""
        return self._names is None or any(name.startswith(beginning) for name in self._names)

    def below_block(self, block: int) -> bool:
        """Whether any parameter moves that has a part in the tokens which enter a block."""
        return self._names is None or any(below_block(f"backbone/{name}", block) for name in self._names)


def below_block(path: str, block: int) -> bool:
    """Whether a parameter ("backbone/...") has a part in the tokens that enter a block of the backbone."""
    name = path.removeprefix("backbone/")
    if name == path or name.startswith(_FINAL_NORM):
        return False
    found = _BLOCK.match(name)
    return found is None or int(found[1]) < block


def frozen_blocks(config: ViTConfig, frozen: str) -> int:
    """How many of the first blocks are frozen together with all that is below them.

    What comes out of these is a function of the picture alone, the same at every step.
    """
    moving = Moving(config, frozen)
    return max((n for n in range(1, config.depth + 1) if not moving.below_block(n)), default=0)
