"""What the experiments of CEL share."""

import types
from collections.abc import Sequence
from typing import Any

import ml_collections

from configs import common, paper
from data_pipelines.mask_tag_views import MaskTagView
from data_pipelines.streams import StreamConfig
from larvseg_jax import options
from larvseg_jax.methods import cel
from larvseg_jax.methods.cel.options import StreamLoss
from larvseg_jax.text.vectors import TextClasses
from larvseg_jax.vocabulary.class_lists import class_list
from larvseg_jax.vocabulary.splits import split_of

ARGUMENTS: dict[str, str | int | bool] = dict(
    stage="cel",  # cel, or pretrain: Mask2Former on the seen classes alone, which cel begins with (config.pretrained)
    # Of unseen classes, in stage cel: none; true ones, of what the crop shows; pseudo labels, of a file; or unnamed: no
    # labels, nor names to compete with.
    labels="true",
    tags="pseudo_labels.json",  # that file, in data_root
    unmatched="uniform",  # what queries without a label learn, in stage cel: uniform (KL), or background (Table 6)
    rank=1,  # weight of the ranking loss, in stage cel
)
"""Arguments of the configs and their defaults."""

PAPER_ARGUMENTS = ARGUMENTS | dict(
    backbone="vit"  # ViT-B/16 and a feature pyramid; or resnet50, with the paper's deformable attention
)
"""Those of the configs of the paper's sizes."""

_TAGS_FROM = {"none": "masked", "unnamed": "masked", "true": "crop", "pseudo": "photo"}


def experiment(name: str, vectors: str, width: int) -> ml_collections.ConfigDict:
    """All defaults of CEL; the stream, sizes and classes are added by each config."""
    config = common.get_config()
    config.name = name
    common.use_method(config, cel.Config(TextClasses(vectors, width)))
    config.model.drop_path = 0.0
    return config


def photos(config: ml_collections.ConfigDict, given: types.SimpleNamespace, unseen: Sequence[str], **changes) -> None:
    """The stream "photos" of one of the stages, and the method as that stage has it.

    `given`: ARGUMENTS. `changes`: options of the stream; its `classes` are the seen and the unseen ones.
    """
    if given.stage not in ("pretrain", "cel") or given.labels not in _TAGS_FROM:
        raise ValueError(f"config arguments stage={given.stage}, labels={given.labels}: see configs/cel/parts.py")
    section = options.defaults(StreamConfig, MaskTagView, StreamLoss)
    stream = ml_collections.ConfigDict(dict(kind="masks_and_tags", **section))
    stream.lock()
    stream.update(changes)
    method = config.method
    if given.stage == "pretrain" or given.labels == "unnamed":
        stream.classes = tuple(name for name in stream.classes if name not in unseen)
    if given.stage == "pretrain":
        method.matching.update(classes="paired", class_cost="probability")
        method.classes.unmatched, method.rank.weight = "background", 0.0
        config.name += "_pretrain"
    else:
        stream.unmasked = () if given.labels == "unnamed" else tuple(unseen)
        stream.tags_from = _TAGS_FROM[given.labels]
        stream.source.tags_file = given.tags if given.labels == "pseudo" else ""
        method.classes.unmatched, method.rank.weight = given.unmatched, float(given.rank)
        config.name += f"_{given.labels}_{given.unmatched}_rank{given.rank}"
    config.streams.photos = stream


def known(given: types.SimpleNamespace, unseen: Sequence[str], classes: Sequence[str]) -> tuple[str, ...]:
    """The classes to be evaluated on: in the first stage the seen ones, then all."""
    return tuple(name for name in classes if given.stage != "pretrain" or name not in unseen)


def paper_sizes(config: ml_collections.ConfigDict, given: types.SimpleNamespace, side: int, steps: int) -> None:
    """A ViT-B/16 at `side` pixels in the place of ResNet-50, or this (`given`: PAPER_ARGUMENTS), and the schedule.

    The paper's two falls of the rate, at 5,000 and 80,000 of 50,000 steps, cannot be meant: here they are where
    Mask2Former has them on COCO. `Original:` the decay is that of Simple Baseline.
    """
    if given.backbone not in ("vit", "resnet50"):
        raise ValueError(f"config argument backbone={given.backbone}: give vit or resnet50")
    config.pretrained = paper.AUGREG_B16
    if given.backbone == "resnet50":
        config.name += "_resnet50"
        config.pretrained = "resnet50-0676ba61.pth"  # torchvision's IMAGENET1K_V1
        config.method.backbone, config.method.decoder.pixels = "resnet", "msdeform"
    config.total_steps = steps
    config.model.update(image_size=side, dtype="bfloat16")
    config.optimizer.update(name="adamw", schedule="steps", learning_rate=5e-5, min_learning_rate=0.0)
    config.optimizer.update(weight_decay=1e-4, clip_norm=0.01, backbone_rate=0.1)
    config.checkpoint.every = steps // 10


def crops(side: int) -> dict[str, Any]:
    """Of a stream: short sides from half to three halves of `side`, and the class of every other pixel."""
    return dict(batch_size=8, scale=(4 * side, side), ratio_range=(0.5, 1.5), crop_size=side, downsample_rate=2)


def evaluation(side: int, **changes) -> ml_collections.ConfigDict:
    """Photos of a short side of `side` pixels, in windows that overlap by a third; the paper sees them whole."""
    sizes = dict(scale=(4 * side, side), window=side, stride=side * 2 // 3, every=10_000, batch_size=8)
    return common.evaluation(**sizes, **changes)


def split(config: ml_collections.ConfigDict, given: types.SimpleNamespace, key: str, side: int, **changes) -> None:
    """The stream and the evaluation of a data set some of whose classes are unseen (vocabulary/splits.py)."""
    found = split_of(key)
    classes = class_list(found.class_list).ids
    config.vocabulary.update(classes=classes, base=found.seen, novel=found.unseen)
    source = common.source(tfds=f"{found.class_list}/1.0.0", split="train")
    photos(config, given, found.unseen, source=source, classes=classes, **crops(side) | changes)
    source = common.source(tfds=f"{found.class_list}/1.0.0", split="val")
    config.evals = dict(val=evaluation(side, source=source, classes=known(given, found.unseen, classes)))
