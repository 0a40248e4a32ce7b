"""The border between a config file and the code: one typed, checked, frozen description of a run."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections

from larvseg_jax.ca_classifier import CAConfig
from larvseg_jax.errors import UserError
from larvseg_jax.models.vit import ViTConfig
from larvseg_jax.optimizer import OptimizerConfig
from larvseg_jax.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class SourceConfig:
    """Where examples come from; exactly one of `tfds` and `folder` is set."""

    tfds: str
    folder: str
    split: str


@dataclasses.dataclass(frozen=True)
class StreamConfig:
    """One stream of training pictures and the weights of its losses; see `configs/common.py`."""

    kind: str
    source: SourceConfig
    classes: tuple[str, ...]
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


def from_config(config: ml_collections.ConfigDict) -> Experiment:
    """Checks a config and freezes it; UserError names the option that cannot be."""
    model = config.model.to_dict()
    gamma_init = model.pop("gamma_init")
    experiment = Experiment(
        name=config.name,
        workdir=Path(config.workdir or f"runs/{config.name}"),
        data_root=Path(config.data_root or os.environ.get("LARVSEG_DATA", ".")),
        seed=config.seed,
        total_steps=config.total_steps,
        vocabulary=Vocabulary(**_tuples(config.vocabulary)),
        streams={name: _stream(stream) for name, stream in config.streams.items()},
        downsample_rate=config.downsample_rate,
        batch_padding=config.batch_padding,
        data_threads=config.data_threads,
        vit=ViTConfig(**model),
        gamma_init=gamma_init,
        pretrained=config.pretrained,
        ca_classifier=CAConfig(**config.ca_classifier),
        seg_loss_mean=config.seg_loss_mean,
        optimizer=OptimizerConfig(**config.optimizer),
        mesh=(config.mesh.data, config.mesh.model),
        eval=EvalConfig(**_tuples(config.eval) | {"source": SourceConfig(**config.eval.source)}),
        checkpoint_every=config.checkpoint.every,
        keep_last=config.checkpoint.keep_last,
        log_every=config.log_every,
        gallery=config.gallery,
        settings=config.to_dict(),
    )
    _check(experiment)
    return experiment


def _stream(config: ml_collections.ConfigDict) -> StreamConfig:
    return StreamConfig(**_tuples(config) | {"source": SourceConfig(**config.source)})


def _tuples(config: ml_collections.ConfigDict) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list | tuple) else v for k, v in config.items()}


_CHOICES = {
    "batch_padding": ("refuse", "pad"),
    "seg_loss_mean": ("all", "valid"),
    "model.stem": ("patch", "conv"),
    "model.dtype": ("float32", "bfloat16"),
    "ca_classifier.variant": ("cross_image", "region", "own_bank"),
    "ca_classifier.bank_dtype": ("float32", "bfloat16"),
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
