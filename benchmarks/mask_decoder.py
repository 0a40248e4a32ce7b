"""One training step of the mask decoder and its pixel decoder, ours and PyTorch's Mask2Former, in turn.

    python -m benchmarks.mask_decoder [--torch_python=PATH] [--queries=100 --layers=9 --size=512] [--repeats=5]

Forward and backward from maps of strides 4, 8, 16 and 32 of a picture of `--size` pixels to the states and masks of
all outputs, of which the loss is a mean of squares; no backbone, no matching. The pixel decoders are ours with and
without attention; PyTorch's are those of transformers and a plain FPN (benchmarks/_torch_mask2former.py), which needs
an environment of its own (python -m venv DIR; DIR/bin/pip install torch transformers scipy). Peak memory is that of
the process, which holds the other sizes' programs, too; what our compiled program needs is said beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._our_step import Work, timed
from benchmarks.vs_pytorch import compare, torch_process
from larvseg_jax.devices.memory import program_memory
from larvseg_jax.models.mask_decoder.decoder import MaskedDecoder
from larvseg_jax.models.mask_decoder.fpn import FpnPixelDecoder
from larvseg_jax.models.mask_decoder.msdeform import MsDeformPixelDecoder
from larvseg_jax.models.mask_decoder.weights import decoder_parameters, pixel_decoder_parameters

STRIDES = (4, 8, 16, 32)
PIXEL_DECODERS = ("fpn", "msdeform")
TORCH = "benchmarks._torch_mask2former"


def maps_of(size: int, batch: int, width: int) -> list[np.ndarray]:
    """Random maps (b, h, w, d), fine to coarse."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal((batch, size // s, size // s, width), np.float32) for s in STRIDES]


def ours(
    pixel_decoder: str, settings: dict[str, int], maps: list[np.ndarray], weights: dict[str, np.ndarray]
) -> tuple[Work, str]:
    """The step, and what its program needs; with PyTorch's weights where the file has them."""
    width, heads, layers = settings["width"], settings["heads"], settings["layers"]
    pixels: Any = (
        FpnPixelDecoder(width, width)
        if pixel_decoder == "fpn"
        else MsDeformPixelDecoder(width, heads, settings["pixel_mlp"], settings["pixel_layers"], width)
    )
    decoder = MaskedDecoder(width, heads, settings["mlp"], layers, settings["queries"], width)
    given = tuple(map(jnp.asarray, maps))

    def loss(params: Any, maps: Any) -> jax.Array:
        decoded: Any = decoder.apply({"params": params["decoder"]}, *pixels.apply({"params": params["pixels"]}, maps))
        return jnp.mean(jnp.square(decoded.states)) + jnp.mean(jnp.square(decoded.masks))

    def fresh(key: jax.Array, maps: Any) -> dict[str, Any]:
        decoded, params = pixels.init_with_output(key, maps)
        return {"pixels": params["params"], "decoder": decoder.init(key, *decoded)["params"]}

    params: Any = jax.jit(fresh)(jax.random.key(0), given)
    if weights and pixel_decoder == "msdeform":
        theirs = {"pixels": pixel_decoder_parameters(part_of(weights, "pixels/"))}
        theirs["decoder"] = decoder_parameters(part_of(weights, "decoder/"), heads)
        params = jax.tree.map(lambda fresh, x: jnp.asarray(x.reshape(fresh.shape)), params, theirs)
    compiled = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(params, given).compile()
    memory = program_memory(compiled)
    need = (
        "unknown" if memory is None else f"{memory.temporary / 1e9:.3g} GB temporary, {memory.total / 1e9:.3g} in all"
    )
    return functools.partial(timed, lambda: [float(jax.block_until_ready(compiled(params, given))[0])]), need


def part_of(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays of a prefix, without it."""
    return {name.removeprefix(prefix): x for name, x in arrays.items() if name.startswith(prefix)}


def weights_of(ask: Callable[..., dict[str, Any]]) -> dict[str, np.ndarray]:
    """PyTorch's, by its names."""
    with tempfile.TemporaryDirectory() as folder:
        ask("weights", f"{folder}/weights.npz")
        with np.load(f"{folder}/weights.npz") as file:
            return dict(file)


def settings_of(args: argparse.Namespace) -> dict[str, int]:
    """Sizes of both sides."""
    heads, wider = max(args.width // 32, 1), args.width * 4
    return {
        "size": args.size, "batch": args.batch, "width": args.width, "heads": heads, "queries": args.queries,
        "layers": args.layers, "mlp": 2 * wider, "pixel_mlp": wider, "pixel_layers": args.pixel_layers,
    }  # fmt: skip


def main() -> None:
    """Prints a table for each pixel decoder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--torch_python", help="an interpreter with torch and transformers")
    parser.add_argument("--pixel_decoder", choices=PIXEL_DECODERS, help="default: both")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--layers", type=int, default=9, help="of the mask decoder")
    parser.add_argument("--pixel_layers", type=int, default=6, help="of the pixel decoder with attention")
    parser.add_argument("--size", type=int, default=512, help="of the picture, pixels; a multiple of 32")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--width", type=int, default=256, help="a multiple of 32")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    if args.size % STRIDES[-1] or args.width % 32:
        parser.exit(2, "error: --size and --width must be multiples of 32\n")
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    settings = settings_of(args)
    maps = maps_of(args.size, args.batch, args.width)
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, {settings}")
    weights: dict[str, np.ndarray] = {}
    with contextlib.ExitStack() as stack:
        ask: Callable[..., dict[str, Any]] | None = None
        if args.torch_python:
            arrays = {f"map_{i}": x for i, x in enumerate(maps)} | {"settings": np.array(json.dumps(settings))}
            versions, ask = stack.enter_context(torch_process(args.torch_python, arrays, TORCH))
            print(versions)
            weights = weights_of(ask)
        else:
            print("PyTorch not installed (--torch_python=PATH)")
        for name in (args.pixel_decoder,) if args.pixel_decoder else PIXEL_DECODERS:
            work, need = ours(name, settings, maps, weights)
            print(f"our compiled step with {name}: {need}")
            works: dict[str, Work] = {"larvseg_jax": work}
            if ask:
                if name == "msdeform":  # the same weights
                    print(f"loss: ours {work()['losses']}, PyTorch {ask('step', name)['losses']}")
                works["PyTorch"] = functools.partial(ask, "step", name)
            compare(f"{name} and mask decoder", works, args.repeats)


if __name__ == "__main__":
    main()
