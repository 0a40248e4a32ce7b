"""Model FLOPs of one training step by formula, part by part: for the MFU, and to see what a part costs.

Conventions:
- Matrix products and convolutions only; a multiply-add is 2 FLOPs. Softmax, norms, top-k, the optimiser and the
  memory bank's scatter multiply no matrices and count nothing.
- A product of two things that are learnt costs three times its forward pass (the product, and a gradient for
  each factor); one with a constant factor (the pictures, a resampling matrix) twice; the CA-Classifier, which
  carries no gradient, once.
- What the method needs, not what a run adds: no recomputation (`model.remat`), no filling up of batches, label sets
  or class blocks. Label slots count whether or not a label is in them, since shapes are static.
- As the code computes: bilinear resampling is two dense matrix products (`resize.py`); L_cls and L_aux share the
  covariance of the classes G and p^T G p, whose gradients take one product each, since G is symmetric (method 5.5).

Letters: D width, F hidden width of the MLP, T tokens of a picture (P patches and the class token), N columns of a
stream, l label slots, h x w patch grid, H x W loss grid.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from larvseg_jax.models.vit import ViTConfig

if TYPE_CHECKING:
    from larvseg_jax.config import Experiment

BOTH_LEARNT, ONE_LEARNT, NO_GRADIENT = 3, 2, 1
"""Times the forward pass: products whose gradient goes to both factors, to one, to none."""

BACKBONE = ("stem", "position_embedding", "qkv", "attention", "attention_out", "mlp")
CLASS_HEAD = ("patch_projection", "class_projection", "mask_logits", "upsampling", "pooled_logits")
CA_CLASSIFIER = ("tag_scores", "attention_maps", "mining")
"""The parts, in groups: everything that learns from classes, and what finds the attention, which learns nothing."""


@dataclasses.dataclass(frozen=True)
class StreamSizes:
    """The shapes of one stream.

    Attributes:
      kind: "masks" or "tags".
      images: of a step, over all devices.
      side, loss_side: of the square crop and of its loss grid, pixels.
      classes: N.
      label_slots: l; tags only.
      attention: how L_aux weighs the patches: "" (no L_aux), "mined" (needs the background classes) or "region".
      writes_bank: whether the run keeps a memory bank, so that this stream's tags are scored.
    """

    kind: str
    images: int
    side: int
    loss_side: int
    classes: int
    label_slots: int = 0
    attention: str = ""
    writes_bank: bool = False


def step_flops(vit: ViTConfig, streams: Iterable[StreamSizes]) -> dict[str, int]:
    """FLOPs of each part of a training step, forward and backward, summed over streams; sum() is the step."""
    parts: collections.Counter[str] = collections.Counter(dict.fromkeys(BACKBONE + CLASS_HEAD + CA_CLASSIFIER, 0))
    for stream in streams:
        parts.update(backbone_flops(vit, stream.images, stream.side))
        parts.update(head_flops(vit, stream))
        if stream.kind == "tags":
            parts.update(ca_classifier_flops(vit, stream))
    return dict(parts)


def share(parts: Mapping[str, int], names: Iterable[str]) -> float:
    """What part of the step the named parts are."""
    return sum(parts[name] for name in names) / sum(parts.values())


def stream_sizes(run: Experiment) -> tuple[StreamSizes, ...]:
    """The shapes of a run's streams."""
    kinds = {"region": "region", "cross_image": "mined", "own_bank": "mined"}
    return tuple(
        StreamSizes(
            kind=stream.kind,
            images=stream.batch_size,
            side=stream.crop_size,
            loss_side=stream.crop_size // run.downsample_rate,
            classes=len(run.label_set(stream)),
            label_slots=stream.max_labels if stream.kind == "tags" else 0,
            attention=kinds[run.ca_classifier.variant] if stream.kind == "tags" and stream.lambda_aux > 0 else "",
            writes_bank=run.attends,
        )
        for stream in run.streams.values()
    )


def backbone_flops(vit: ViTConfig, images: int, side: int) -> dict[str, int]:
    """The ViT on square pictures of `side` pixels."""
    d, grid = vit.width, -(-side // vit.patch_size)
    patches = grid * grid
    tokens = images * (patches + 1)
    blocks = BOTH_LEARNT * vit.depth
    return {
        "stem": _stem(vit, images, grid),
        "position_embedding": 0
        if (grid, grid) == vit.stored_grid
        else ONE_LEARNT * _resize(vit.stored_grid[0], grid, d),
        "qkv": blocks * 3 * _product(tokens, d, d),
        "attention": blocks * 2 * _product(tokens, d, patches + 1),  # scores, and their sums of values
        "attention_out": blocks * _product(tokens, d, d),
        "mlp": blocks * 2 * _product(tokens, d, vit.mlp_dim),
    }


def head_flops(vit: ViTConfig, stream: StreamSizes) -> dict[str, int]:
    """The cosine classifier and its losses; the class table is made once per stream and step."""
    d, n, images = vit.width, stream.classes, stream.images
    grid = -(-stream.side // vit.patch_size)
    patches = images * grid * grid
    parts = {
        "patch_projection": BOTH_LEARNT * _product(patches, d, d),
        "class_projection": BOTH_LEARNT * _product(n, d, d),
    }
    if stream.kind == "masks":
        parts["mask_logits"] = BOTH_LEARNT * _product(patches, d, n)
        parts["upsampling"] = ONE_LEARNT * images * _resize(grid, stream.loss_side, n)
        return parts
    rows = 1 + (stream.label_slots if stream.attention else 0)  # L_cls: one row serves all labels; L_aux: one each
    parts["pooled_logits"] = _pooled_logits(d, n, images, grid * grid, rows)
    return parts


def ca_classifier_flops(vit: ViTConfig, stream: StreamSizes) -> dict[str, int]:
    """Scores, attention maps and mined backgrounds of a tag stream; no gradient passes here."""
    d, grid, pairs = vit.width, -(-stream.side // vit.patch_size), stream.images * stream.label_slots
    patches = stream.images * grid * grid
    parts = {"tag_scores": NO_GRADIENT * pairs * _product(grid * grid, d, 1) if stream.writes_bank else 0}
    if not stream.attention:
        return parts
    # The map goes up to the loss grid, the weights come back down to the patches.
    parts["attention_maps"] = NO_GRADIENT * 2 * pairs * _resize(grid, stream.loss_side, 1)
    if stream.attention == "mined":
        # Foreground maps, the mined one, and for mining what the foreground is compared by.
        parts["attention_maps"] += NO_GRADIENT * (pairs * _product(grid * grid, d, 1) + 2 * _product(patches, d, 1))
        # Raw scores and bank scores of every class, then the mean of the banks kept.
        parts["mining"] = NO_GRADIENT * (
            2 * _product(patches, d, stream.classes) + _product(stream.images, stream.classes, d)
        )
    return parts


def _pooled_logits(d: int, n: int, images: int, patches: int, rows: int) -> int:
    """Method 5.5: G, p^T G p, one D-vector per row of weights, and its logits."""
    gram = ONE_LEARNT * _product(d, n, d)
    variance = ONE_LEARNT * images * _product(patches, d, d)
    pooled = ONE_LEARNT * images * _product(rows, patches, d)
    return gram + variance + pooled + BOTH_LEARNT * images * _product(rows, d, n)


def _stem(vit: ViTConfig, images: int, grid: int) -> int:
    """No gradient goes to the pictures, so the first layer's is one product less."""
    if vit.stem == "patch":
        return ONE_LEARNT * images * _product(grid * grid, 3 * vit.patch_size**2, vit.width)
    halvings, total, before = vit.patch_size.bit_length() - 1, 0, 3
    for i in range(halvings):
        features, side = vit.width >> (halvings - 1 - i), grid << (halvings - 1 - i)
        times = BOTH_LEARNT if i else ONE_LEARNT
        total += times * images * _product(side * side, 9 * before, features)
        before = features
    return total + BOTH_LEARNT * images * _product(grid * grid, before, vit.width)


def _resize(old: int, new: int, channels: int) -> int:
    """One map of old x old to new x new: columns first, then rows."""
    return _product(new, old, old * channels) + _product(new, old, new * channels)


def _product(rows: int, inner: int, columns: int) -> int:
    """A (rows, inner) matrix times an (inner, columns) one."""
    return 2 * rows * inner * columns
