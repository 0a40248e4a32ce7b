"""`--show`: every option of a run with its value, and which differ from their defaults."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from data_pipelines.replacing import DataConfig
from data_pipelines.streams import StreamConfig
from larvseg_jax.config import CheckpointConfig, Experiment, RunConfig
from larvseg_jax.console import console
from larvseg_jax.devices.sharding import MeshConfig
from larvseg_jax.evaluation.config import EvalConfig
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.options import defaults, flat, plain, short
from larvseg_jax.training.optimizer import OptimizerConfig
from larvseg_jax.vocabulary import Vocabulary
from larvseg_jax.vocabulary.catalogue import ClassListsConfig


def show(run: Experiment) -> None:
    """Prints the resolved config, a line for each option, those that differ from their defaults with these."""
    settings, usual = flat(run.settings), flat(default_settings(run))
    different = 0
    for option, value in settings.items():
        line = Text(f"{option} = {short(value)}")
        if option not in usual:
            line.stylize("bold")
            line.append("  (has no default)", "dim")
        elif plain(value) != plain(usual[option]):
            different += 1
            line.stylize("bold")
            line.append(f"  (default {short(usual[option])})", "cyan")
        console.print(line)
    console.print(f"{len(settings)} options, {different} of which differ from their defaults")


def default_settings(run: Experiment) -> dict[str, Any]:
    """The config that a run would have if nothing had been changed: the defaults of every section it has."""
    return {
        **defaults(RunConfig),
        "vocabulary": defaults(Vocabulary),
        "class_lists": defaults(ClassListsConfig),
        "model": defaults(ViTConfig),
        "method": defaults(type(run.method)),
        "optimizer": defaults(OptimizerConfig),
        "mesh": defaults(MeshConfig),
        "checkpoint": defaults(CheckpointConfig),
        "data": defaults(DataConfig),
        "streams": {
            name: defaults(StreamConfig, type(stream.view), type(stream.loss)) for name, stream in run.streams.items()
        },
        "evals": {name: defaults(EvalConfig) for name in run.evals},
    }
