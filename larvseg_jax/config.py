"""The border between a config file and the code: one typed, checked, frozen description of a run."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import ml_collections

from data_pipelines.picture_files import MAX_MEGAPIXELS
from data_pipelines.replacing import DataConfig
from data_pipelines.streams import StreamConfig
from data_pipelines.views import VIEWS
from larvseg_jax import old_settings
from larvseg_jax.devices.sharding import MeshConfig
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.config import EvalConfig
from larvseg_jax.methods import method_config
from larvseg_jax.methods.method import MethodConfig
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.options import Count, CountOrNone, names, read
from larvseg_jax.training.optimizer import OptimizerConfig
from larvseg_jax.vocabulary import Vocabulary
from larvseg_jax.vocabulary.catalogue import Catalogue, ClassListsConfig


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """The section `checkpoint`."""

    every: Count = 8000  # steps between two checkpoints; every evaluated state is saved, too
    keep_last: Count = 2  # the newest so many are kept, and the best one
    # The score that says which one is the best: of the first evaluation by name, a, b, c (configs have no other order).
    best: Literal["mIoU", "mIoU_base", "mIoU_novel", "hIoU", "mAcc", "aAcc"] = "mIoU"


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The options that are in no section."""

    name: str = "unnamed"
    workdir: str = ""  # checkpoints, logs, report; "" = runs/<name>
    data_root: str = ""  # "" = environment variable LARVSEG_DATA, else the current folder
    max_megapixels: Count = MAX_MEGAPIXELS  # the largest photo or mask that is decoded, millions of pixels
    seed: int = 0
    total_steps: Count = 320_000
    batch_padding: Literal["refuse", "pad"] = "refuse"  # a batch the mesh does not divide: filled up with masked rows
    data_threads: CountOrNone = 4  # that prepare batches ahead; 0: none
    pretrained: str = ""  # AugReg .npz, run folder, .safetensors or .pth (docs/weights.md); "" = from scratch
    # Regular expression on parameter paths ("^backbone/"): what of `pretrained` is taken; "" = all.
    pretrained_parts: str = ""
    features: str = ""  # folder of cached features (docs/features.md) that streams read in place of photos; "" = none
    log_every: Count = 50  # steps
    gallery: CountOrNone = 12  # photos in the report, of each evaluation

    def __post_init__(self) -> None:
        try:
            re.compile(self.pretrained_parts)
        except re.error as error:
            raise UserError(
                f"pretrained_parts is {self.pretrained_parts!r}, no regular expression ({error}): correct it"
            ) from None


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A whole run: the only room that knows all sections. `settings` is the config it came from, as plain values."""

    name: str
    workdir: Path
    data_root: Path
    max_megapixels: int
    seed: int
    total_steps: int
    batch_padding: str
    data_threads: int
    pretrained: str
    pretrained_parts: str
    features: Path | None
    log_every: int
    gallery: int
    catalogue: Catalogue
    streams: Mapping[str, StreamConfig]
    vit: ViTConfig
    method: MethodConfig
    optimizer: OptimizerConfig
    mesh: MeshConfig
    evals: Mapping[str, EvalConfig]
    checkpoint: CheckpointConfig
    data: DataConfig
    settings: Mapping[str, Any]

    @property
    def vocabulary(self) -> Vocabulary:
        """All classes."""
        return self.catalogue.vocabulary


def from_config(config: ml_collections.ConfigDict | Mapping[str, Any]) -> Experiment:
    """Checks a config and freezes it; UserError names the option that cannot be."""
    plain = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else dict(config)
    settings = old_settings.upgraded(plain)
    sections = {"vocabulary", "class_lists", "streams", "model", "method", "optimizer", "mesh", "evals", "checkpoint"}
    top = read(RunConfig, {name: value for name, value in settings.items() if name not in {*sections, "data"}})
    missing = sorted(sections - settings.keys())
    if missing:
        raise UserError(f"the config has no section {missing[0]}: begin with configs/common.py")
    for name in sorted(sections):
        if not isinstance(settings[name], Mapping):
            raise UserError(
                f"the config's {name} is a {type(settings[name]).__name__}: it must be a section of options"
            )
    method, vit = network_sections(settings)
    streams = {name: _stream(section, f"streams.{name}", method) for name, section in settings["streams"].items()}
    if not streams:
        raise UserError("the config has no streams: add mask_stream(...), tag_stream(...) or caption_stream(...) to it")
    masked = [stream for stream in streams.values() if stream.view.labels_pixels]
    return Experiment(
        **dataclasses.asdict(top)
        | {
            "workdir": Path(top.workdir or f"runs/{top.name}").expanduser(),
            "data_root": Path(top.data_root or os.environ.get("LARVSEG_DATA", ".")).expanduser(),
            "features": Path(top.features).expanduser() if top.features else None,
            "pretrained": os.path.expanduser(top.pretrained),  # the shell leaves --config.x=~/y as it is
        },
        catalogue=Catalogue.of(
            read(Vocabulary, settings["vocabulary"], "vocabulary"),
            read(ClassListsConfig, settings["class_lists"], "class_lists"),
            masked,
        ),
        streams=streams,
        vit=vit,
        method=method,
        optimizer=read(OptimizerConfig, settings["optimizer"], "optimizer"),
        mesh=read(MeshConfig, settings["mesh"], "mesh"),
        evals={name: read(EvalConfig, settings["evals"][name], f"evals.{name}") for name in sorted(settings["evals"])},
        checkpoint=read(CheckpointConfig, settings["checkpoint"], "checkpoint"),
        data=read(DataConfig, settings.get("data", {}), "data"),  # configs of before November 2026 have none
        settings=settings,
    )


def network_sections(settings: Mapping[str, Any]) -> tuple[MethodConfig, ViTConfig]:
    """What makes the network: the sections `method` and `model`. All that inference needs of a config.

    Raises:
      KeyError: one of the two is missing.
      UserError: one is no section, or has an option that does not exist, is missing or wrong.
    """
    section, model = settings["method"], settings["model"]
    name = section.get("name") if isinstance(section, Mapping) else None
    if not isinstance(name, str):
        raise UserError("the config's section method has no name: give method.name, such as 'larvseg'")
    return read(method_config(name), section, "method"), read(ViTConfig, model, "model")


def _stream(section: Any, path: str, method: MethodConfig) -> StreamConfig:
    """A stream's options, flat in the config, given to the view, the method and the stream itself."""
    rest = dict(section) if isinstance(section, Mapping) else {}
    kind = rest.pop("kind", None)
    if not isinstance(kind, str) or kind not in VIEWS:
        raise UserError(f"{path}.kind is {kind!r}: use {' or '.join(map(repr, VIEWS))}")
    parts: dict[str, Any] = {}
    for part, options in (("view", VIEWS[kind]), ("loss", method.loss_options(VIEWS[kind]))):
        parts[part] = read(options, {name: rest.pop(name) for name in names(options) if name in rest}, path)
    own = [name for name in names(StreamConfig) if name not in parts]
    for name in rest:
        if name not in own:
            there = ", ".join((*own, *names(type(parts["view"])), *names(type(parts["loss"]))))
            raise UserError(f"there is no option {path}.{name}: a stream of {kind} has {there}")
    return read(StreamConfig, rest, path, **parts)
