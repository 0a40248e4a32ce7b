"""Model FLOPs of one training step by formula, part by part: for the MFU, and to see what a part costs.

Conventions:
- Matrix products and convolutions only; a multiply-add is 2 FLOPs. Softmax, norms, top-k, the optimiser and the
  memory bank's scatter multiply no matrices and count nothing.
- A product of two things that are learnt costs three times its forward pass (the product, and a gradient for
  each factor); one with a constant factor (the pictures, a resampling matrix) twice; the CA-Classifier, which
  carries no gradient, once. What is frozen has no gradient, nor has what lies below the lowest parameter of the
  backbone that moves; of the head only the projections count so.
- What the method needs, not what a run adds: no recomputation (`model.remat`), no filling up of batches, label sets
  or class blocks. Label slots count whether or not a label is in them, since shapes are static.
- As the code computes: bilinear resampling is two dense matrix products (`models/resize.py`); L_cls and L_aux share the
  covariance of the classes G and p^T G p, whose gradients take one product each, since G is symmetric (method 5.5).

Letters: D width, F hidden width of the MLP, T tokens of a picture (P patches, class token, registers), N columns of a
stream, l label slots, h x w patch grid, H x W loss grid.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterable, Mapping

from larvseg_jax.methods.larvseg.options import Options, TagLoss
from larvseg_jax.methods.larvseg.streams import columns_on
from larvseg_jax.methods.method import Task
from larvseg_jax.models.flops import (
    BACKBONE,
    BOTH_LEARNT,
    NO_GRADIENT,
    ONE_LEARNT,
    backbone_flops,
    product_flops,
    resize_flops,
)
from larvseg_jax.models.frozen import Moving
from larvseg_jax.models.vit_config import ViTConfig

CLASS_HEAD = ("patch_projection", "class_projection", "mask_logits", "upsampling", "pooled_logits")
CA_CLASSIFIER = ("tag_scores", "attention_maps", "mining")
"""Names of the parts of a step. Those of CA_CLASSIFIER are computed without gradients."""


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


def step_flops(vit: ViTConfig, streams: Iterable[StreamSizes], frozen: str = "", first: int = 0) -> dict[str, int]:
    """FLOPs of each part of a training step, forward and backward, summed over streams; sum() is the step.

    `frozen`, `first`: as in `backbone_flops`.
    """
    parts: collections.Counter[str] = collections.Counter(dict.fromkeys(BACKBONE + CLASS_HEAD + CA_CLASSIFIER, 0))
    for stream in streams:
        parts.update(backbone_flops(vit, stream.images, stream.side, frozen, first))
        parts.update(head_flops(vit, stream, frozen))
        if stream.kind == "tags":
            parts.update(ca_classifier_flops(vit, stream))
    return dict(parts)


def share(parts: Mapping[str, int], names: Iterable[str]) -> float:
    """What part of the step the named parts are."""
    return sum(parts[name] for name in names) / sum(parts.values())


def stream_sizes(task: Task, config: Options, attends: bool, data: int = 1, model: int = 1) -> tuple[StreamSizes, ...]:
    """The shapes of a task's streams; as one chip of `data` x `model` has them, which share pictures and classes out.

    Chips along `model` have the same pictures, so each does their backbone; those along `data` have the same
    classes, so each makes their table.
    """
    kinds = {"region": "region", "cross_image": "mined", "own_bank": "mined"}
    sizes = []
    for stream in task.streams.values():
        # Where classes are split, a stream has the columns that its mesh makes of them.
        label_set = stream.label_set if model == 1 else columns_on(task, stream.label_set)[0]
        tagged = isinstance(stream.loss, TagLoss)
        sizes.append(
            StreamSizes(
                kind="tags" if tagged else "masks",
                images=-(-stream.batch_size // data),
                side=stream.view.crop_size,
                loss_side=stream.view.loss_size,
                classes=-(-len(label_set) // model),
                label_slots=stream.view.max_labels or 0,
                attention=kinds[config.ca_classifier.variant] if tagged and stream.loss.lambda_aux > 0 else "",
                writes_bank=attends,
            )
        )
    return tuple(sizes)


def head_flops(vit: ViTConfig, stream: StreamSizes, frozen: str = "") -> dict[str, int]:
    """The cosine classifier and its losses; the class table is made once per stream and step."""
    d, n, images = vit.width, stream.classes, stream.images
    grid = -(-stream.side // vit.patch_size)
    patches = images * grid * grid

    def moves(name: str) -> bool:
        return not frozen or re.search(frozen, f"head/{name}") is None

    patches_times = 1 + Moving(vit, frozen)("") + moves("proj_patch")
    classes_times = 1 + moves("class_embeddings") + moves("proj_classes")
    parts = {
        "patch_projection": patches_times * product_flops(patches, d, d),
        "class_projection": classes_times * product_flops(n, d, d),
    }
    if stream.kind == "masks":
        parts["mask_logits"] = BOTH_LEARNT * product_flops(patches, d, n)
        parts["upsampling"] = ONE_LEARNT * images * resize_flops(grid, stream.loss_side, n)
        return parts
    rows = 1 + (stream.label_slots if stream.attention else 0)  # L_cls: one row serves all labels; L_aux: one each
    parts["pooled_logits"] = _pooled_logits(d, n, images, grid * grid, rows)
    return parts


def ca_classifier_flops(vit: ViTConfig, stream: StreamSizes) -> dict[str, int]:
    """Scores, attention maps and mined backgrounds of a tag stream; no gradient passes here."""
    d, grid, pairs = vit.width, -(-stream.side // vit.patch_size), stream.images * stream.label_slots
    patches = stream.images * grid * grid
    parts = {"tag_scores": NO_GRADIENT * pairs * product_flops(grid * grid, d, 1) if stream.writes_bank else 0}
    if not stream.attention:
        return parts
    # The map goes up to the loss grid, the weights come back down to the patches.
    parts["attention_maps"] = NO_GRADIENT * 2 * pairs * resize_flops(grid, stream.loss_side, 1)
    if stream.attention == "mined":
        # Foreground maps, the mined one, and for mining what the foreground is compared by.
        parts["attention_maps"] += NO_GRADIENT * (
            pairs * product_flops(grid * grid, d, 1) + 2 * product_flops(patches, d, 1)
        )
        # Raw scores and bank scores of every class, then the mean of the banks kept.
        parts["mining"] = NO_GRADIENT * (
            2 * product_flops(patches, d, stream.classes) + product_flops(stream.images, stream.classes, d)
        )
    return parts


def _pooled_logits(d: int, n: int, images: int, patches: int, rows: int) -> int:
    """Method 5.5: G, p^T G p, one D-vector per row of weights, and its logits."""
    gram = ONE_LEARNT * product_flops(d, n, d)
    variance = ONE_LEARNT * images * product_flops(patches, d, d)
    pooled = ONE_LEARNT * images * product_flops(rows, patches, d)
    return gram + variance + pooled + BOTH_LEARNT * images * product_flops(rows, d, n)
