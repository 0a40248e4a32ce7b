"""Model FLOPs of a step by part; conventions as in models/flops.py."""

from __future__ import annotations

import collections

from data_pipelines.caption_views import CaptionView
from larvseg_jax.methods.method import StreamTask, Task
from larvseg_jax.methods.vilseg.options import Options
from larvseg_jax.models.flops import BOTH_LEARNT, NO_GRADIENT, backbone_flops, product_flops


def step_flops(task: Task, config: Options, data: int = 1) -> dict[str, int]:
    """Of one chip among `data`; parts of the backbone as elsewhere, and both heads, the text tower, the batch's pairs.

    What is frozen has no gradient in the backbone; all else is counted as learnt.
    """
    parts: collections.Counter[str] = collections.Counter()
    for stream in task.streams.values():
        parts.update(_stream_flops(task, config, stream, data))
    return dict(parts)


def _stream_flops(task: Task, config: Options, stream: StreamTask, data: int) -> collections.Counter[str]:
    own, vit, width, view = -(-stream.batch_size // data), task.backbone, config.width, stream.view
    assert isinstance(view, CaptionView)
    whole = own * (2 if config.cluster.weight else 1)
    views = own * view.local_views if config.vision.weight else 0
    parts = collections.Counter(backbone_flops(vit, whole, view.crop_size, task.frozen))
    patches = whole * (-(-view.crop_size // vit.patch_size)) ** 2
    if views:
        parts.update(backbone_flops(vit, views, view.local_size, task.frozen))
    if config.vision.has_teacher:
        forward = backbone_flops(vit, own, view.crop_size, "^backbone/")  # nothing moves: no gradient
        parts["teacher"] = sum(forward.values())
    local_patches = views * (-(-view.local_size // vit.patch_size)) ** 2
    parts["image_projection"] = BOTH_LEARNT * product_flops(patches + local_patches, vit.width, width)
    if config.vision.weight:
        times = BOTH_LEARNT * views + NO_GRADIENT * own
        parts["view_head"] = times * product_flops(1, width, config.vision.dim)
    if config.cluster.weight:
        columns = config.cluster.num * config.cluster.heads
        parts["cluster_head"] = BOTH_LEARNT * product_flops(patches, width, columns)
        parts["joint"] = BOTH_LEARNT * product_flops(config.cluster.num, patches // 2, columns)
    if config.cross.weight:
        parts["text_tower"] = _text_flops(config, own, view.text.context)
        parts["pairs"] = BOTH_LEARNT * product_flops(own, width, stream.batch_size)
    return parts


def _text_flops(config: Options, texts: int, length: int) -> int:
    tower, tokens = config.text, texts * length
    block = 4 * product_flops(tokens, tower.width, tower.width)  # query, key, value, out
    block += 2 * product_flops(tokens, tower.width, length)  # scores, and their sums of values
    block += 2 * product_flops(tokens, tower.width, tower.mlp_dim)
    return BOTH_LEARNT * (tower.depth * block + product_flops(texts, tower.width, config.width))
