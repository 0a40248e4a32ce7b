"""The border between a config file and the code: one typed, checked, frozen description of a run."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections

from larvseg_jax.ca_classifier import CAConfig
from larvseg_jax.class_lists import as_original, class_list
from larvseg_jax.errors import UserError
from larvseg_jax.metrics import Split
from larvseg_jax.models.vit import ViTConfig
from larvseg_jax.optimizer import OptimizerConfig
from larvseg_jax.sharding import ShardingRules
from larvseg_jax.unions import Union, unite
from larvseg_jax.vocabulary import LabelSet, Vocabulary


@dataclasses.dataclass(frozen=True)
class SourceConfig:
    """Where examples come from; exactly one of `tfds`, `folder` and `class_folders` is set."""

    tfds: str
    folder: str
    class_folders: str
    split: str


@dataclasses.dataclass(frozen=True)
class StreamConfig:
    """One stream of training pictures and the weights of its losses; see `configs/common.py`."""

    kind: str
    source: SourceConfig
    classes: tuple[str, ...]
    class_list: str
    sample_classes: int
    batch_size: int
    weight: float
    lambda_cls: float
    lambda_aux: float
    always_tags: tuple[str, ...]
    tags_from: str
    max_labels: int
    scale: tuple[int, int]
    ratio_range: tuple[float, float]
    crop_size: int
    category_ratio: float


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """How a checkpoint is evaluated."""

    source: SourceConfig
    classes: tuple[str, ...]
    class_list: str
    splits: tuple[str, ...]
    scale: tuple[int, int]
    window: int
    stride: int
    limit: int
    resize: str
    every: int
    class_block: int


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A whole run. `settings` is the config it came from, as plain values."""

    name: str
    workdir: Path
    data_root: Path
    seed: int
    total_steps: int
    vocabulary: Vocabulary
    union: Union | None
    separate_duplicates: bool
    streams: Mapping[str, StreamConfig]
    downsample_rate: int
    batch_padding: str
    data_threads: int
    vit: ViTConfig
    gamma_init: float
    pretrained: str
    ca_classifier: CAConfig
    seg_loss_mean: str
    optimizer: OptimizerConfig
    mesh: tuple[int, int]
    sharding: ShardingRules
    eval: EvalConfig
    checkpoint_every: int
    keep_last: int
    log_every: int
    gallery: int
    settings: Mapping[str, Any]

    @property
    def attends(self) -> bool:
        """Whether any stream uses the CA-Classifier; without one the bank is not written."""
        return any(s.kind == "tags" and s.lambda_aux > 0 for s in self.streams.values())

    def label_set(self, knows: StreamConfig | EvalConfig) -> LabelSet:
        """The classes that a stream, or the evaluation, knows."""
        if not knows.class_list:
            return self.vocabulary.label_set(knows.classes)
        if self.union is None or knows.class_list not in self.union.names:
            listed = ", ".join(self.union.names) if self.union else "nothing"
            raise UserError(f"class_list {knows.class_list!r} is not in class_lists.lists, which has {listed}: add it")
        # Of equal columns the first wins every argmax: merged or not is the same in an evaluation.
        merged = not self.separate_duplicates or isinstance(knows, EvalConfig)
        ids, names = class_list(knows.class_list).ids, self.union.names[knows.class_list]
        return self.vocabulary.label_set_of(ids, names, merged=merged)

    def splits(self) -> tuple[Split, ...]:
        """The other definitions of base and novel that the evaluation reports, in names of its columns."""
        if not self.eval.splits:
            return ()
        key = self.eval.class_list
        if self.union is None or key not in self.union.names:
            raise UserError(f"eval.splits {self.eval.splits} need eval.class_list: ade20k_150 or ade20k_full_847")
        column = dict(zip(class_list(key).ids, self.union.names[key], strict=True))
        splits = (class_list(key).split(definition) for definition in self.eval.splits)
        return tuple(Split(s.label, frozenset(column[i] for i in s.base)) for s in splits)


def from_config(config: ml_collections.ConfigDict) -> Experiment:
    """Checks a config and freezes it; UserError names the option that cannot be."""
    model = config.model.to_dict()
    gamma_init = model.pop("gamma_init")
    streams = {name: _stream(stream) for name, stream in config.streams.items()}
    union = _union(config.class_lists)
    experiment = Experiment(
        name=config.name,
        workdir=Path(config.workdir or f"runs/{config.name}").expanduser(),
        data_root=Path(config.data_root or os.environ.get("LARVSEG_DATA", ".")).expanduser(),
        seed=config.seed,
        total_steps=config.total_steps,
        vocabulary=_vocabulary(config, union, streams),
        union=union,
        separate_duplicates=config.class_lists.duplicates == "separate",
        streams=streams,
        downsample_rate=config.downsample_rate,
        batch_padding=config.batch_padding,
        data_threads=config.data_threads,
        vit=ViTConfig(**model),
        gamma_init=gamma_init,
        pretrained=os.path.expanduser(config.pretrained),  # the shell leaves --config.x=~/y as it is
        ca_classifier=CAConfig(**config.ca_classifier),
        seg_loss_mean=config.seg_loss_mean,
        optimizer=OptimizerConfig(**config.optimizer),
        mesh=(config.mesh.data, config.mesh.model),
        sharding=_sharding(config.mesh),
        eval=EvalConfig(**_tuples(config.eval) | {"source": SourceConfig(**config.eval.source)}),
        checkpoint_every=config.checkpoint.every,
        keep_last=config.checkpoint.keep_last,
        log_every=config.log_every,
        gallery=config.gallery,
        settings=config.to_dict(),
    )
    _check(experiment)
    return experiment


def _union(config: ml_collections.ConfigDict) -> Union | None:
    if not config.lists:
        return None
    return unite([as_original(key) if ":" in key else class_list(key) for key in config.lists], config.share)


def _vocabulary(
    config: ml_collections.ConfigDict, union: Union | None, streams: Mapping[str, StreamConfig]
) -> Vocabulary:
    """That of the config, or the union of its class lists: base is what a mask stream knows, all else novel."""
    if union is None:
        return Vocabulary(**_tuples(config.vocabulary))
    if config.vocabulary.classes:
        raise UserError("vocabulary.classes and class_lists.lists are both given: keep one of the two")
    masked = {name for s in streams.values() if s.kind == "masks" for name in union.names.get(s.class_list, s.classes)}
    base = tuple(name for name in union.classes if name in masked)
    return Vocabulary(union.classes, base, tuple(name for name in union.classes if name not in masked))


def _stream(config: ml_collections.ConfigDict) -> StreamConfig:
    return StreamConfig(**_tuples(config) | {"source": SourceConfig(**config.source)})


def _sharding(config: ml_collections.ConfigDict) -> ShardingRules:
    rules = tuple((pattern, tuple(axes)) for pattern, axes in config.rules)
    return ShardingRules(rules, config.shard_backbone)


def _tuples(config: ml_collections.ConfigDict) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list | tuple) else v for k, v in config.items()}


_CHOICES = {
    "batch_padding": ("refuse", "pad"),
    "class_lists.duplicates": ("merged", "separate"),
    "seg_loss_mean": ("all", "valid"),
    "model.stem": ("patch", "conv"),
    "model.dtype": ("float32", "bfloat16"),
    "ca_classifier.variant": ("cross_image", "region", "own_bank"),
    "ca_classifier.bank_dtype": ("float32", "float16", "bfloat16"),
    "eval.resize": ("logits", "labels"),
}


_LEAST = {
    **dict.fromkeys(("total_steps", "downsample_rate", "log_every", "checkpoint.every", "checkpoint.keep_last"), 1),
    **dict.fromkeys(("model.patch_size", "model.num_heads", "model.depth"), 1),
    **dict.fromkeys(("ca_classifier.memory_bank_size", "ca_classifier.class_block"), 1),
    **dict.fromkeys(("ca_classifier.foreground_topk", "ca_classifier.background_topk"), 1),
    **dict.fromkeys(("eval.every", "eval.window", "eval.class_block"), 1),
    **dict.fromkeys(("data_threads", "gallery", "eval.limit", "optimizer.warmup_steps"), 0),
}


def _check(run: Experiment) -> None:
    for option, choices in _CHOICES.items():
        value = _value(run.settings, option)
        if value not in choices:
            raise UserError(f"{option} is {value!r}: use {' or '.join(map(repr, choices))}")
    for option, least in _LEAST.items():
        value = _value(run.settings, option)
        if value < least:
            raise UserError(f"{option} is {value}: use {least} or more")
    if run.vit.width % run.vit.num_heads:
        raise UserError(f"model.width={run.vit.width} is not a multiple of model.num_heads={run.vit.num_heads}")
    if run.vit.stem == "conv" and run.vit.patch_size.bit_count() != 1:
        raise UserError(f"model.patch_size={run.vit.patch_size}: the conv stem halves, so it must be a power of 2")
    if not run.streams:
        raise UserError("the config has no streams: add mask_stream(...) or tag_stream(...) to config.streams")
    for name, stream in run.streams.items():
        _check_stream(f"streams.{name}", stream, run)
    _check_topk("eval.window", run.eval.window, run)  # the report shows attention maps of evaluation photos


def _check_stream(option: str, stream: StreamConfig, run: Experiment) -> None:
    if stream.kind not in ("masks", "tags"):
        raise UserError(f"{option}.kind is {stream.kind!r}: use 'masks' or 'tags'")
    if stream.tags_from not in ("crop", "image"):
        raise UserError(f"{option}.tags_from is {stream.tags_from!r}: use 'crop' or 'image'")
    if stream.class_list and stream.classes:
        raise UserError(f"{option} has classes and a class_list: keep one of the two")
    if stream.sample_classes < 0:
        raise UserError(f"{option}.sample_classes is {stream.sample_classes}: use 0 (all) or more")
    if stream.crop_size % run.downsample_rate:
        raise UserError(f"{option}.crop_size={stream.crop_size} is not a multiple of downsample_rate")
    if stream.kind == "tags":
        _check_topk(option, stream.crop_size, run)


def _check_topk(option: str, side: int, run: Experiment) -> None:
    """`Original:` with K above the number of patches the bank silently stays empty."""
    patches = (-(-side // run.vit.patch_size)) ** 2
    most = max(run.ca_classifier.foreground_topk, run.ca_classifier.background_topk)
    if run.attends and most > patches:
        raise UserError(f"ca_classifier top-k of {most} exceeds the {patches} patches of {option}: lower it")


def _value(settings: Mapping[str, Any], option: str) -> Any:
    """The value of "section.option"."""
    for key in option.split("."):
        settings = settings[key]
    return settings
