"""Starts a model from weights that exist: which file, what fits where, and the report of it (docs/weights.md)."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import PyTree

from larvseg_jax.console import first_few
from larvseg_jax.errors import UserError
from larvseg_jax.models.position import resize_position_embedding
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.weights.augreg import augreg_weights, read_npz
from larvseg_jax.weights.backbones import is_backbone, read_backbone
from larvseg_jax.weights.clip_files import is_clip, read_clip
from larvseg_jax.weights.load_report import SHOWN, LoadReport, about_activation, about_pixels
from larvseg_jax.weights.original import TORCH_SUFFIXES, OriginalCheckpoint, union_classes
from larvseg_jax.weights.places import find_run
from larvseg_jax.weights.resnet_files import is_resnet, read_resnet
from larvseg_jax.weights.safetensors_file import read_arrays, read_safetensors
from larvseg_jax.weights.stored_checkpoint import read_checkpoint
from larvseg_jax.weights.stored_weights import CLASS_EMBEDDINGS, POSITIONS, StoredWeights, describe_size, options_of
from larvseg_jax.weights.torch_file import read_state_dict
from larvseg_jax.weights.torch_layout import ATTENTION

POSITION_EMBEDDING = POSITIONS.removeprefix("backbone/")
"""Its name in a backbone, and in AugReg files."""


def load_pretrained(
    path: str | Path, params: PyTree, vit: ViTConfig, classes: Sequence[str], parts: str = ""
) -> tuple[PyTree, LoadReport]:
    """The parameters of a model, with all that a file holds of them in place of the fresh values.

    A position embedding stored for another grid is resized to that of `vit`, the class token's entry kept. The forward
    pass resizes once more to the grid of its pictures, as in the original.
    Class embeddings go by name: a class that the file does not know keeps its fresh row.

    Args:
      path: an AugReg .npz; a run of ours, its newest checkpoint, or one checkpoint (runs/x/checkpoints/800);
        a .safetensors file of ours; a .pth file of the original; a backbone of timm, facebook or Hugging Face, or a
        CLIP, in any of these kinds of files.
      params: fresh parameters of the Network, placed; the result is placed in the same way.
      vit: options of the backbone.
      classes: names of the rows of the class embeddings, in order; rows beyond them stay fresh.
      parts: regular expression on the paths of the arrays that are taken ("^backbone/"); "": all.

    Raises:
      UserError: the file cannot be read, or it does not fit (all differences in one line).
        `Original:` missing and unknown arrays are only logged.
    """
    flat = traverse_util.flatten_dict(params, sep="/")
    fitted = _fit_all(Path(path), _shapes(flat), vit, classes, parts)
    arrays = dict(fitted.arrays)
    if CLASS_EMBEDDINGS in arrays:
        rows = arrays.pop(CLASS_EMBEDDINGS)[fitted.rows_there]
        flat[CLASS_EMBEDDINGS] = _place_rows(flat[CLASS_EMBEDDINGS], fitted.rows_here, rows)
    flat |= {name: jax.device_put(value, flat[name].sharding) for name, value in arrays.items()}
    return traverse_util.unflatten_dict(flat, sep="/"), fitted.report


def check_there(path: str | Path) -> None:
    """UserError if there is nothing at `path`, or a folder that is no run; nothing of it is read."""
    path = Path(path)
    if path.is_dir():
        find_run(path, None)
    elif not path.exists():
        read_weights(path, ViTConfig())  # each reader has its own remedy


def check_pretrained(
    path: str | Path, layout: PyTree, vit: ViTConfig, classes: Sequence[str], parts: str = ""
) -> LoadReport:
    """What `load_pretrained` would report or raise; of the parameters only names and shapes are needed."""
    wanted = _shapes(traverse_util.flatten_dict(layout, sep="/"))
    return _fit_all(Path(path), wanted, vit, classes, parts).report


@dataclasses.dataclass(frozen=True)
class _Fitted:
    """Arrays that fit, the report, and which rows of the file's class embeddings go to which rows here."""

    arrays: Mapping[str, np.ndarray]
    report: LoadReport
    rows_here: np.ndarray
    rows_there: np.ndarray


def _fit_all(
    path: Path, wanted: Mapping[str, tuple[int, ...]], vit: ViTConfig, classes: Sequence[str], parts: str
) -> _Fitted:
    stored = read_weights(path, vit)
    taken = {name: value for name, value in stored.arrays.items() if re.search(parts, name)}
    if not taken:
        begin = " or ".join(sorted({name.partition("/")[0] for name in stored.arrays}))
        raise UserError(f"pretrained_parts={parts!r} finds nothing in {path}, whose arrays begin with {begin}")
    stored = dataclasses.replace(stored, arrays=taken)
    arrays, report = fit(stored, wanted, vit, path)
    row_of = {name: row for row, name in enumerate(stored.classes)}
    here = np.array([i for i, name in enumerate(classes) if name in row_of], np.int32)
    there = np.array([row_of[classes[i]] for i in here], np.int32)
    if CLASS_EMBEDDINGS in arrays:
        report = dataclasses.replace(
            report,
            rows_found=len(here),
            rows_fresh=tuple(name for name in classes if name not in row_of),
            rows_unused=len(stored.classes) - len(here),
        )
    return _Fitted(arrays, report, here, there)


def _shapes(flat: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: x.shape for name, x in flat.items()}


def read_weights(path: Path, vit: ViTConfig) -> StoredWeights:
    """What a file or a run holds, by the reader that it needs; of `vit` the width and its heads are believed.

    UserError if it cannot be read, or is no kind of weights known here.
    """
    if path.is_dir():
        return read_checkpoint(path).weights
    if path.suffix == ".npz":
        found = read_npz(path)
        return _foreign(_readers(found), vit, path) or augreg_weights(path, found)
    if path.suffix == ".safetensors":
        found, _ = read_arrays(path)
        return _foreign(_readers(found), vit, path) or read_safetensors(path)
    if path.suffix in TORCH_SUFFIXES:
        foreign = _foreign({name: tensor.read for name, tensor in read_state_dict(path).items()}, vit, path)
        if foreign is not None:
            return foreign
        original = OriginalCheckpoint.open(path)
        classes = union_classes(original.class_rows, None, path)
        return original.weights(classes, vit.num_heads if original.width == vit.width else None)
    problem = "is no kind of weights known here" if path.exists() else "does not exist"
    raise UserError(
        f"pretrained={path} {problem}: give an AugReg .npz, the folder of a run or of one of its checkpoints, "
        "a .safetensors file of larvseg_jax, a .pth file of the original, or a backbone or a CLIP in such a file "
        "(docs/weights.md)"
    )


def _readers(found: Mapping[str, np.ndarray]) -> dict[str, Callable[[], np.ndarray]]:
    return {name: functools.partial(found.__getitem__, name) for name in found}


def _foreign(arrays: Mapping[str, Callable[[], np.ndarray]], vit: ViTConfig, path: Path) -> StoredWeights | None:
    """The weights of another implementation; None if the names are none of those that are read here."""
    if is_clip(arrays):
        return read_clip(arrays, path, vit)
    if is_resnet(arrays):
        return read_resnet(arrays, path)
    return read_backbone(arrays, (vit.width, vit.num_heads), path) if is_backbone(arrays) else None


def fit(
    stored: StoredWeights, wanted: Mapping[str, tuple[int, ...]], vit: ViTConfig, path: Path
) -> tuple[dict[str, np.ndarray], LoadReport]:
    """The arrays of a file as float32 in the shapes `wanted`; only the class embeddings keep their own rows.

    UserError if any is missing (but whole parts of the model beside the backbone may be), unknown (but of another
    implementation whole parts may be), of another shape, of integers, or not finite; or a CLIP's activation is another.
    """
    here, there = ({name.partition("/")[0] for name in names} for names in (wanted, stored.arrays))
    unused = there - here if stored.whose else set()
    arrays = {name: value for name, value in stored.arrays.items() if name.partition("/")[0] not in unused}
    if stored.whose:
        arrays = {name: _split_into_heads(name, value, wanted) for name, value in arrays.items()}
    _check_activation(stored, vit, path)
    resized = _resize_position_embedding(arrays, wanted, vit)
    left_fresh = {name for name in wanted if name.partition("/")[0] in here - there - {"backbone"}}
    problems = _differences(arrays, wanted, left_fresh)
    if problems:
        theirs, ours = describe_size(stored.shapes), describe_size(wanted)
        sizes = f"it is a {theirs}, the model a {ours}; " if theirs != ours else ""
        sizes = f"it holds {stored.whose}; {sizes}" if stored.whose else sizes
        raise UserError(f"{path} does not fit the model: {sizes}{_remedy(stored, wanted)}{'; '.join(problems)}")
    with np.errstate(over="ignore"):  # noticed below
        params = {name: np.asarray(value, np.float32) for name, value in arrays.items()}
    bad = sorted(name for name, value in params.items() if not np.isfinite(value).all())
    if bad:
        raise UserError(
            f"{path} has values that are no float32 numbers in {first_few(bad, SHOWN)}: it is damaged or diverged"
        )
    report = LoadReport(
        source=stored.source,
        size=describe_size(stored.shapes),
        loaded=tuple(sorted(params)),
        missing=tuple(sorted(left_fresh)),
        extra=tuple(sorted({*stored.left_out, *(stored.arrays.keys() - arrays.keys())})),
        resized=resized,
        dtypes=tuple(sorted({str(value.dtype) for value in arrays.values()})),
        pixels=about_pixels(stored.pixels, vit.pixels),
        activation=about_activation(stored, vit),
    )
    return params, report


def _split_into_heads(name: str, value: np.ndarray, wanted: Mapping[str, tuple[int, ...]]) -> np.ndarray:
    """An array of a text tower's attention: how many heads it has, is the model's to say."""
    shape = wanted.get(name, ())
    text = name.startswith("text/") and f"/{ATTENTION}/" in name
    return value.reshape(shape) if text and value.size == math.prod(shape) else value


def _check_activation(stored: StoredWeights, vit: ViTConfig, path: Path) -> None:
    if stored.activation and stored.activation != vit.mlp:
        raise UserError(
            f"{path} does not fit the model: it holds {stored.whose}, trained with {stored.activation}; set "
            f"--config.model.mlp={stored.activation}"
        )


def _remedy(stored: StoredWeights, wanted: Mapping[str, tuple[int, ...]]) -> str:
    """The options to set where the model section is another one than the file tells."""
    there, here = options_of(stored.shapes), options_of(wanted)
    differing = [f"--config.model.{name}={there[name]}" for name in there if there[name] != here[name]]
    if not differing or 0 in [there[name] for name in ("width", "depth", "num_heads", "mlp_dim", "patch_size")]:
        return ""  # of a file that is damaged, or no vision transformer
    return f"set {' '.join(differing)}; as it is, "


def _resize_position_embedding(
    arrays: dict[str, np.ndarray], wanted: Mapping[str, tuple[int, ...]], vit: ViTConfig
) -> str:
    """Resizes it in `arrays` if it is that of another, square grid; says from what to what."""
    value, target, leading = arrays.get(POSITIONS), wanted.get(POSITIONS), int(vit.class_token)
    if value is None or target is None or value.ndim != 3 or value.shape == target or value.shape[::2] != target[::2]:
        return ""
    side = math.isqrt(max(value.shape[1] - leading, 0))
    if not side or side**2 != value.shape[1] - leading or not _is_float(value):
        return ""
    grid = vit.stored_grid
    embedding = jnp.asarray(np.asarray(value, np.float32))
    resized = resize_position_embedding(embedding, (side, side), grid, vit.position_resize)
    arrays[POSITIONS] = np.asarray(resized)
    return f"{side}x{side} -> {grid[0]}x{grid[1]}"


def _differences(
    arrays: Mapping[str, np.ndarray], wanted: Mapping[str, tuple[int, ...]], left_fresh: set[str]
) -> list[str]:
    """All of them, a few names of each kind."""
    shapes, dtypes = [], []
    for name in sorted(wanted.keys() & arrays.keys()):
        found, needed = arrays[name].shape, wanted[name]
        by_name = name == CLASS_EMBEDDINGS and len(found) == len(needed)
        if found[by_name:] != needed[by_name:]:
            shapes.append(f"{name} {found} and not {needed}")
        if not _is_float(arrays[name]):
            dtypes.append(f"{name} {arrays[name].dtype}")
    kinds = {
        "missing": sorted(wanted.keys() - arrays.keys() - left_fresh),
        "unknown": sorted(arrays.keys() - wanted.keys()),
        "wrong shape": shapes,
        "wrong dtype (no floating-point numbers)": dtypes,
    }
    return [f"{kind}: {first_few(names, SHOWN)}" for kind, names in kinds.items() if names]


def _is_float(value: np.ndarray) -> bool:
    return bool(jnp.issubdtype(value.dtype, jnp.floating))


def _place_rows(fresh: jax.Array, rows: np.ndarray, values: np.ndarray) -> jax.Array:
    """The fresh class embeddings with new values in some rows, laid out as before."""

    @functools.partial(jax.jit, out_shardings=fresh.sharding)
    def replace(table: jax.Array, rows: jax.Array, values: jax.Array) -> jax.Array:
        return table.at[rows].set(values)

    return replace(fresh, rows, values)
