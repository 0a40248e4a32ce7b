"""Large-vocabulary semantic segmentation; `from larvseg_jax import Segmenter` is what people use of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from larvseg_jax.predict.segmenter import Segmenter

__all__ = ["Segmenter"]


def __getattr__(name: str) -> Any:
    """Segmenter, imported late: it starts JAX, which is to be told before where compiled programs are kept."""
    if name != "Segmenter":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from larvseg_jax import cli

    cli.keep_compiled_programs()
    from larvseg_jax.predict.segmenter import Segmenter

    return Segmenter
