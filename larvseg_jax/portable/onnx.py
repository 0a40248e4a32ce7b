"""A model's prediction as an ONNX file, for onnxruntime and what else reads them (docs/exports.md)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import cast

import jax

from larvseg_jax.models.any_device import on_any_device
from larvseg_jax.portable.program import example_photo, photo_program
from larvseg_jax.trained import Trained


def onnx(trained: Trained, classes: Sequence[str], size: tuple[int, int]) -> bytes:
    """The file's content; needs jax2onnx. Its one input and its one output are those of `photo_program`."""
    import jax2onnx

    # It complains of libraries that only its examples need.
    logging.getLogger("jax2onnx").setLevel(logging.CRITICAL)
    # It adds shapes of other ranks while it traces the network's layers.
    with on_any_device("plain"), jax.numpy_rank_promotion("allow"):
        model = jax2onnx.to_onnx(photo_program(trained, classes, size), [example_photo(size)])
    return cast(bytes, model.SerializeToString())
