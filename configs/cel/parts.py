"""What the experiments of CEL share."""

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
    labels="true",  # of unseen classes, in stage cel: none, pseudo (larvseg pseudo_labels), or true ones
    unmatched="uniform",  # what queries without a label learn, in stage cel: uniform (KL), or background (Table 6)
    rank=1,  # weight of the ranking loss, in stage cel
)
"""Arguments of the configs and their defaults."""


def experiment(name: str, vectors: str, width: int) -> ml_collections.ConfigDict:
    """All defaults of CEL; streams, sizes and classes are added by each config."""
    config = common.get_config()
    config.name = name
    common.use_method(config, cel.Config(TextClasses(vectors, width)))
    config.model.drop_path = 0.0
    return config


def photos(**changes) -> ml_collections.ConfigDict:
    """A stream of photos with masks of seen classes and tags of all."""
    section = dict(kind="masks_and_tags", **options.defaults(StreamConfig, MaskTagView, StreamLoss))
    config = ml_collections.ConfigDict(section)
    config.lock()
    config.update(changes)
    return config


def use_stage(config: ml_collections.ConfigDict, given, seen: Sequence[str]) -> None:
    """The method as one of the two stages has it; last, when the streams are as they are to be."""
    method = config.method
    if given.stage == "pretrain":
        method.matching.update(classes="paired", class_cost="probability")
        method.classes.unmatched, method.rank.weight = "background", 0.0
        for stream in config.streams.values():
            stream.classes = tuple(seen)
        config.name += "_pretrain"
    elif given.stage == "cel":
        method.classes.unmatched, method.rank.weight = given.unmatched, float(given.rank)
        config.name += f"_{given.labels}_{given.unmatched}_rank{given.rank}"
    else:
        raise ValueError(f"config argument stage={given.stage}: use cel or pretrain")
