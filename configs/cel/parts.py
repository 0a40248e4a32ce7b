"""What the experiments of CEL share."""

import types
from collections.abc import Sequence

import ml_collections

from configs import common
from data_pipelines.mask_tag_views import MaskTagView
from data_pipelines.streams import StreamConfig
from larvseg_jax import options
from larvseg_jax.methods import cel
from larvseg_jax.methods.cel.options import StreamLoss
from larvseg_jax.text.vectors import TextClasses

ARGUMENTS: dict[str, str | int | bool] = dict(
    stage="cel",  # cel, or pretrain: Mask2Former on the seen classes alone, which cel begins with (config.pretrained)
    # Of unseen classes, in stage cel: none; true ones, of what the crop shows; or pseudo labels, of a file.
    labels="true",
    tags="pseudo_labels.json",  # that file, in data_root
    unmatched="uniform",  # what queries without a label learn, in stage cel: uniform (KL), or background (Table 6)
    rank=1,  # weight of the ranking loss, in stage cel
)
"""Arguments of the configs and their defaults."""

_TAGS_FROM = {"none": "masked", "true": "crop", "pseudo": "photo"}


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
    if given.stage == "pretrain":
        stream.classes = tuple(name for name in stream.classes if name not in unseen)
        method.matching.update(classes="paired", class_cost="probability")
        method.classes.unmatched, method.rank.weight = "background", 0.0
        config.name += "_pretrain"
    else:
        stream.unmasked, stream.tags_from = tuple(unseen), _TAGS_FROM[given.labels]
        stream.source.tags_file = given.tags if given.labels == "pseudo" else ""
        method.classes.unmatched, method.rank.weight = given.unmatched, float(given.rank)
        config.name += f"_{given.labels}_{given.unmatched}_rank{given.rank}"
    config.streams.photos = stream
