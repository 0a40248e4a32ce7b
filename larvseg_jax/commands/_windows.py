"""The flags of how a photo is resized and cut, of every command that segments photos."""

from __future__ import annotations

from larvseg_jax.cli import Flags, Given
from larvseg_jax.errors import UserError


def define_windows(flags: Flags) -> None:
    """Adds --scale and --whole."""
    flags.text("scale", "", "LONG,SHORT: limits of the resized photo's sides, pixels, if not as in the evaluation.")
    flags.switch("whole", "The whole photo at once instead of sliding windows.")


def scale_of(given: Given) -> tuple[int, int] | None:
    """The two sides of --scale, None without it; UserError if they are none."""
    if not given.scale:
        return None
    try:
        long, short = map(int, given.scale.split(","))
    except ValueError:
        raise UserError(f"--scale={given.scale} is not two numbers: give LONG,SHORT such as 2048,512") from None
    if min(long, short) < 1:
        raise UserError(f"--scale={given.scale}: give two sides in pixels, LONG,SHORT such as 2048,512")
    return long, short
