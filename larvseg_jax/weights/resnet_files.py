"""ResNet-50 and -101 under our names: files of torchvision and timm, and of Hugging Face.

Each name says by itself what it means, so that both spellings are read alike. The four arrays of a batch norm become
the scale and the shift that it amounts to once it is frozen (models/resnet.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from larvseg_jax.errors import UserError
from larvseg_jax.weights.stored_weights import StoredWeights

_PREFIX = r"(?:module\.|model\.|backbone\.|resnet\.)*"
_MARKS = (  # of bottlenecks: the first convolution, and the last of a block
    (r"conv1\.weight", r"layer4\.0\.conv3\.weight"),
    (r"embedder\.embedder\.convolution\.weight", r"encoder\.stages\.3\.layers\.0\.layer\.2\.convolution\.weight"),
)
_OUTSIDE = {
    "conv1": "conv1",
    "bn1": "norm1",
    "embedder.embedder.convolution": "conv1",
    "embedder.embedder.normalization": "norm1",
}
_BLOCK = re.compile(r"layer(\d)\.(\d+)\.(.+)")
_IN_BLOCK = {  # torchvision, Hugging Face
    **{f"conv{i}": f"conv{i}" for i in (1, 2, 3)},
    **{f"bn{i}": f"norm{i}" for i in (1, 2, 3)},
    **{f"layer.{i - 1}.convolution": f"conv{i}" for i in (1, 2, 3)},
    **{f"layer.{i - 1}.normalization": f"norm{i}" for i in (1, 2, 3)},
    **dict.fromkeys(("downsample.0", "shortcut.convolution"), "shortcut"),
    **dict.fromkeys(("downsample.1", "shortcut.normalization"), "shortcut_norm"),
}
_STAGE = re.compile(r"encoder\.stages\.(\d)\.layers\.(\d+)\.(.+)")
_NORM = ("weight", "bias", "running_mean", "running_var")
_EPSILON = 1e-5  # added to the variance, in all of these implementations
_EXTRA = re.compile(r"(?:fc|classifier)\.|.*num_batches_tracked$")


def is_resnet(names: Iterable[str]) -> bool:
    """Whether arrays of these names are a ResNet of bottlenecks."""
    return bool(_prefixes(list(names)))


def read_resnet(arrays: Mapping[str, Callable[[], np.ndarray]], path: Path) -> StoredWeights:
    """The network; its classifier is left out.

    Args:
      arrays: names in the file, and what reads each; `is_resnet` has said yes to the names.
      path: the file, for messages.

    Raises:
      UserError: an array is there twice.
    """
    prefix = _prefixes(list(arrays))[0]
    found: dict[str, np.ndarray] = {}
    left_out = []
    for name, read in arrays.items():
        inner = name.removeprefix(prefix)
        if not name.startswith(prefix) or _EXTRA.match(inner):
            left_out.append(name)
            continue
        ours, value = _translated(inner), read()
        if ours in found:
            raise UserError(f"{path} holds {ours} twice, under {name} and another name: give one with one of them")
        found[ours] = value.transpose(2, 3, 1, 0) if ours.endswith("/kernel") and value.ndim == 4 else value
    spelling = "torchvision names" if f"{prefix}conv1.weight" in arrays else "Hugging Face names"
    return StoredWeights(
        f"ResNet {path.name}",
        _frozen(found),
        left_out=tuple(left_out),
        pixels="imagenet",
        whose=f"a ResNet as {spelling} it",
    )


def _prefixes(names: list[str]) -> list[str]:
    def of(pattern: str) -> set[str]:
        matches = (re.fullmatch(f"({_PREFIX}){pattern}", name) for name in names)
        return {match[1] for match in matches if match}

    return sorted({prefix for first, last in _MARKS for prefix in of(first) & of(last)})


def _translated(name: str) -> str:
    """Our name of one of theirs, norms still with their four arrays; an unknown name is kept, and will be reported."""
    part, _, kind = name.rpartition(".")
    if part in _OUTSIDE:
        ours = _OUTSIDE[part]
    elif (match := _BLOCK.fullmatch(part)) and match[3] in _IN_BLOCK:
        ours = f"layer{match[1]}_{match[2]}/{_IN_BLOCK[match[3]]}"
    elif (match := _STAGE.fullmatch(part)) and match[3] in _IN_BLOCK:
        ours = f"layer{int(match[1]) + 1}_{match[2]}/{_IN_BLOCK[match[3]]}"
    else:
        return f"backbone/{name}"
    return f"backbone/{ours}/{'kernel' if kind == 'weight' and 'norm' not in ours else kind}"


def _frozen(found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every batch norm that is whole as scale and bias; what is not stays as it is, and will be reported."""
    arrays = dict(found)
    for norm in [name.removesuffix("/running_var") for name in found if name.endswith("/running_var")]:
        parts = [found.get(f"{norm}/{kind}") for kind in _NORM]
        whole = [part for part in parts if part is not None and jnp.issubdtype(part.dtype, jnp.floating)]
        if len(whole) < len(parts) or len({part.shape for part in whole}) > 1:
            continue
        for kind in _NORM:
            del arrays[f"{norm}/{kind}"]
        with np.errstate(all="ignore"):  # what is no number is noticed where it is used
            weight, bias, mean, variance = (part.astype(np.float64) for part in whole)
            scale = weight / np.sqrt(variance + _EPSILON)
            arrays[f"{norm}/scale"] = scale.astype(np.float32)
            arrays[f"{norm}/bias"] = (bias - mean * scale).astype(np.float32)
    return arrays
