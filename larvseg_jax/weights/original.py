"""Weights of the original implementation (PyTorch, mmsegmentation) under the names and layouts used here.

Their layouts are those of PyTorch (torch_layout.py); docs/weights.md has the table.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import numpy as np

from larvseg_jax.errors import UserError
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.options import read
from larvseg_jax.vocabulary import class_lists
from larvseg_jax.weights.foreign import REMEDY, whose
from larvseg_jax.weights.stored_weights import CLASS_EMBEDDINGS, POSITIONS, StoredWeights
from larvseg_jax.weights.torch_file import StoredTensor, read_state_dict
from larvseg_jax.weights.torch_layout import from_torch, unstacked

TORCH_SUFFIXES = (".pth", ".pt")
HEAD_DIM = 64
"""Features per attention head of every ViT in the field; the state dict does not tell."""

_EMBEDDINGS = {
    "cls_token": "backbone/cls",
    "pos_embed": POSITIONS,
    "patch_embed.projection.weight": "backbone/embedding/kernel",
    "patch_embed.projection.bias": "backbone/embedding/bias",
    "ln1.weight": "backbone/Transformer/encoder_norm/scale",
    "ln1.bias": "backbone/Transformer/encoder_norm/bias",
}
_BLOCK = {
    "ln1.weight": "LayerNorm_0/scale",
    "ln1.bias": "LayerNorm_0/bias",
    "attn.attn.out_proj.weight": "MultiHeadDotProductAttention_1/out/kernel",
    "attn.attn.out_proj.bias": "MultiHeadDotProductAttention_1/out/bias",
    "ln2.weight": "LayerNorm_2/scale",
    "ln2.bias": "LayerNorm_2/bias",
    "ffn.layers.0.0.weight": "MlpBlock_3/Dense_0/kernel",
    "ffn.layers.0.0.bias": "MlpBlock_3/Dense_0/bias",
    "ffn.layers.1.weight": "MlpBlock_3/Dense_1/kernel",
    "ffn.layers.1.bias": "MlpBlock_3/Dense_1/bias",
}
_STACKED = {"attn.attn.in_proj_weight": "kernel", "attn.attn.in_proj_bias": "bias"}
_HEAD = {
    "cls_emb": CLASS_EMBEDDINGS,
    "proj_patch": "head/proj_patch",
    "proj_classes": "head/proj_classes",
    "gamma": "head/gamma",
    "beta": "head/beta",
}
BANK = tuple(f"decode_head.{name}" for name in ("queue", "ptr", "full"))
"""Names of the memory bank in the state dict."""

_UNUSED = (
    "decode_head.conv_seg.weight",
    "decode_head.conv_seg.bias",
)  # mmsegmentation's own classifier, which the head never calls


@dataclasses.dataclass(frozen=True)
class OriginalCheckpoint:
    """A .pth file of the original, its tensors still on disk."""

    path: Path
    tensors: Mapping[str, StoredTensor]

    @classmethod
    def open(cls, path: Path) -> OriginalCheckpoint:
        """UserError if the file cannot be read or has no vision transformer of the original in it."""
        tensors = read_state_dict(path)
        if len(tensors["backbone.cls_token"].shape if "backbone.cls_token" in tensors else ()) != 3:
            if owner := whose(tensors):
                raise UserError(f"{path} holds {owner}: {REMEDY}")
            some = ", ".join(sorted(tensors)[:3])
            raise UserError(f"{path} has no backbone.cls_token (but {some}, ...): it is no ViT segmenter of LarvSeg")
        return cls(path, tensors)

    @property
    def width(self) -> int:
        """Feature width of the backbone."""
        return self.tensors["backbone.cls_token"].shape[-1]

    @property
    def class_rows(self) -> int:
        """Rows of the class embeddings; 0 if there are none."""
        tensor = self.tensors.get("decode_head.cls_emb")
        return tensor.shape[0] if tensor is not None and tensor.shape else 0

    def weights(self, classes: tuple[str, ...], heads: int | None = None) -> StoredWeights:
        """The parameters.

        Args:
          classes: names of the rows of the class embeddings.
          heads: attention heads; by default one per 64 features.

        Raises:
          UserError: an array has a shape that no ViT with that many heads has.
        """
        heads = heads or max(self.width // HEAD_DIM, 1)
        arrays: dict[str, np.ndarray] = {}
        left_out = []
        for name, tensor in self.tensors.items():
            if _is_left_out(name):
                left_out.append(name)
                continue
            try:
                arrays |= _translate(name, tensor.read(), heads)
            except (ValueError, IndexError) as error:
                raise UserError(
                    f"{self.path}: {name} has shape {tensor.shape}, which a ViT of width {self.width} with "
                    f"{heads} heads has not; give --heads if it has another number"
                ) from error
        return StoredWeights(f"file of the original {self.path.name}", arrays, classes, tuple(left_out), "imagenet")

    def bank(self) -> dict[str, np.ndarray]:
        """LarvSeg's memory bank by its fields: of each slot the mean of its K features; {} if the file has none.

        `Original:` slots never written hold random unit vectors; here they are zero, as in a fresh bank.
        """
        found = [self.tensors.get(name) for name in BANK]
        if any(tensor is None for tensor in found):
            return {}
        queue, cursor, wraps = (tensor.read() for tensor in found if tensor is not None)
        if queue.ndim != 4 or not queue.size or not cursor.shape == wraps.shape == queue.shape[:1]:
            raise UserError(f"{self.path}: decode_head.queue has shape {queue.shape} and ptr {cursor.shape}: no bank")
        slots = np.stack([_slot_means(of_class) for of_class in queue])
        written = (wraps[:, None] > 0) | (np.arange(slots.shape[1]) < cursor[:, None])
        slots *= written[..., None]
        return {
            "slots": slots,
            "cursor": cursor.astype(np.int32),
            "wraps": wraps.astype(np.int32),
            "class_mean": slots.mean(1, dtype=np.float32),
        }


def unions() -> dict[str, int]:
    """The union vocabularies of the original that ship with the package -> number of their classes."""
    folder = resources.files("larvseg_jax.vocabulary") / "lists"
    keys = sorted(file.name.removesuffix(".json") for file in folder.iterdir() if file.name.startswith("union_"))
    return {key: len(class_lists.raw(key)["classes"]) for key in keys}


def union_classes(rows: int, key: str | None, path: Path) -> tuple[str, ...]:
    """Names of the rows of a file's class embeddings: those of the list `key`, else of the union with as many.

    Raises:
      UserError: there is no such list, its length is another, or names repeat in it.
    """
    if not rows:
        return ()
    known = unions()
    if key is None:
        key = next((name for name, count in known.items() if count == rows), None)
        if key is None:
            sizes = ", ".join(f"{name} {count}" for name, count in known.items())
            raise UserError(
                f"{path} has {rows} class embeddings, and no union that many ({sizes}): name its class list, "
                "python -m larvseg_jax.import_original --union=<class list>"
            )
    try:
        classes = tuple(class_lists.raw(key)["classes"])
    except UserError as error:
        raise UserError(f"{error}, or one of the unions {', '.join(known)}") from error
    if len(classes) != rows or len(set(classes)) != rows:
        fitting = [name for name, count in known.items() if count == rows]
        hint = f"use --union={fitting[0]}" if fitting else "use the list it was trained with"
        raise UserError(f"{path} has {rows} class embeddings, {key} {len(set(classes))} different classes: {hint}")
    return classes


def base_and_novel(classes: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Classes of a union that COCO-Stuff has masks of, and the others; both empty for a list that is no union."""
    for key in unions():
        content = class_lists.raw(key)
        if tuple(content["classes"]) == classes and "coco_stuff_171" in content["label_to_union"]:
            with_masks = set(content["label_to_union"]["coco_stuff_171"])
            base = tuple(name for row, name in enumerate(classes) if row in with_masks)
            return base, tuple(name for row, name in enumerate(classes) if row not in with_masks)
    return (), ()


def vit_config(shapes: Mapping[str, tuple[int, ...]], path: Path) -> ViTConfig:
    """The sizes of the backbone that arrays of these shapes belong to; UserError if none can."""
    block = "backbone/Transformer/encoderblock_"
    try:
        patch, _, _, width = shapes["backbone/embedding/kernel"]
        heads, _ = shapes[f"{block}0/MultiHeadDotProductAttention_1/query/bias"]
        (mlp_dim,) = shapes[f"{block}0/MlpBlock_3/Dense_0/bias"]
        _, tokens, _ = shapes[POSITIONS]
        side = math.isqrt(tokens - 1)
    except (KeyError, ValueError) as error:
        raise UserError(f"{path} has no ViT of the original: look at {error}") from error
    if side**2 != tokens - 1:
        raise UserError(f"{path} has a position embedding of {tokens - 1} patches: only square grids can be converted")
    depth = len({name.removeprefix(block).split("/")[0] for name in shapes if name.startswith(block)})
    sizes = dict(width=width, depth=depth, num_heads=heads, mlp_dim=mlp_dim, patch_size=patch, image_size=side * patch)
    try:
        return read(ViTConfig, sizes, "model")
    except UserError as error:
        raise UserError(f"{path} has no ViT of the original: {error}") from error


def _is_left_out(name: str) -> bool:
    """The bank, which is read on its own, and parts that play no role at inference."""
    return name in (*BANK, *_UNUSED) or not name.startswith(("backbone.", "decode_head."))


def _translate(name: str, value: np.ndarray, heads: int) -> dict[str, np.ndarray]:
    """Our arrays of one of theirs; an unknown name is kept, so that it is reported."""
    if name.startswith("decode_head."):
        ours = _HEAD.get(name.removeprefix("decode_head."), f"head/{name.removeprefix('decode_head.')}")
        return {ours: value.reshape(()) if ours in ("head/gamma", "head/beta") else value}
    inner = name.removeprefix("backbone.")
    if inner in _EMBEDDINGS:
        return {_EMBEDDINGS[inner]: from_torch(_EMBEDDINGS[inner], value, heads)}
    block = re.fullmatch(r"layers\.(\d+)\.(.+)", inner)
    if block is None or block[2] not in (*_BLOCK, *_STACKED):
        return {f"backbone/{inner}": value}
    prefix = f"backbone/Transformer/encoderblock_{block[1]}"
    if block[2] in _STACKED:
        return unstacked(prefix, _STACKED[block[2]], value, heads)
    ours = f"{prefix}/{_BLOCK[block[2]]}"
    return {ours: from_torch(ours, value, heads)}


def _slot_means(queue: np.ndarray) -> np.ndarray:
    """(M, K, D) -> (M, D). Features are divided by their norm once more, as the original does when it reads them."""
    features = queue.astype(np.float32)
    return np.asarray(np.mean(features / np.linalg.norm(features, axis=-1, keepdims=True), axis=1, dtype=np.float32))
