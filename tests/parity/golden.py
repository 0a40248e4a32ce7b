"""Reading golden files: JAX's layout, the class columns, the parameters of our head."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from larvseg_jax.models.cosine_head import ClassTable, CosineHead
from larvseg_jax.models.resize import nearest_indices
from larvseg_jax.vocabulary import IGNORE_LABEL, Vocabulary

GRADIENTS = {
    "cls_emb": "class_embeddings",
    "proj_patch": "proj_patch",
    "proj_classes": "proj_classes",
    "gamma": "gamma",
    "beta": "beta",
}
"""Names of the head's parameters in the files and here."""


@dataclasses.dataclass(frozen=True)
class Golden:
    """One file: its options and its arrays."""

    path: Path
    meta: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @classmethod
    def load(cls, path: Path) -> Golden:
        """Reads a file; of one that is no .npz the path alone."""
        if path.suffix != ".npz":
            return cls(path, {}, {})
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        return cls(path, json.loads(str(arrays.pop("meta", "{}"))), arrays)

    def part(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays of a prefix such as "w/", without it."""
        return {name.removeprefix(prefix): x for name, x in self.arrays.items() if name.startswith(prefix)}

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]


@dataclasses.dataclass(frozen=True)
class Columns:
    """Classes of a data set: `rows` and `multiplicity` of our columns, `of_label[l]` = column of label l."""

    rows: np.ndarray
    multiplicity: np.ndarray
    of_label: np.ndarray


def merged_columns(golden: Golden) -> Columns:
    """Equal class names share one column (COCO-Stuff's seven walls), which counts as often as they are."""
    names = golden["cls_name"].tolist()
    label_set = Vocabulary(tuple(golden["all_cls"].tolist()), (), ()).label_set(names)
    of_label = np.array([label_set.column(name) for name in names])
    return Columns(label_set.rows, label_set.multiplicity, of_label)


def separate_columns(golden: Golden) -> Columns:
    """One column per label, so that an image can have two labels of the same name."""
    n = len(golden["cls_index"])
    return Columns(golden["cls_index"].astype(np.int32), np.ones(n, np.float32), np.arange(n))


def head_of(golden: Golden) -> tuple[CosineHead, dict[str, np.ndarray]]:
    """Our head with the recorded parameters."""
    params = {ours: golden[theirs] for theirs, ours in GRADIENTS.items()}
    return CosineHead(*golden["cls_emb"].shape), params


def head_forward(head: CosineHead, params, features, columns: Columns) -> tuple[Any, ClassTable]:
    """Unit patch features (b, h, w, d) and the class table."""
    patches = head.apply({"params": params}, features, method=CosineHead.patches)
    table = head.apply(
        {"params": params},
        jnp.asarray(columns.rows),
        jnp.asarray(columns.multiplicity),
        method=CosineHead.classes,
    )
    return patches, table


def channels_last(x: np.ndarray) -> np.ndarray:
    """(..., c, h, w) -> (..., h, w, c)."""
    return np.moveaxis(x, -3, -1)


def channels_first(x) -> np.ndarray:
    """(..., h, w, c) -> (..., c, h, w)."""
    return np.moveaxis(np.asarray(x), -1, -3)


def loss_grid(golden: Golden, label: np.ndarray) -> np.ndarray:
    """Labels on the loss grid (..., H, W) int32, the ignored ones IGNORE_LABEL."""
    rate = golden.meta["downsample_rate"]
    height, width = label.shape[-2:]
    rows, columns = nearest_indices(height, height // rate), nearest_indices(width, width // rate)
    small = label[..., rows[:, None], columns].astype(np.int32)
    return np.where(small == golden.meta["ignore_index"], IGNORE_LABEL, small)


def tags_of(labels: np.ndarray, slots: int = 1) -> np.ndarray:
    """Labels present in each picture, (..., H, W) -> (..., L) int32, ascending, then IGNORE_LABEL."""
    present = [np.unique(x[x != IGNORE_LABEL]) for x in labels.reshape(-1, *labels.shape[-2:])]
    slots = max([slots, *map(len, present)])
    padded = [np.pad(x, (0, slots - len(x)), constant_values=IGNORE_LABEL) for x in present]
    return np.array(padded, np.int32).reshape(*labels.shape[:-2], slots)
