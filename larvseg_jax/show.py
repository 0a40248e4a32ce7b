"""`--show`: every option of a run with its value, and which differ from their defaults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.text import Text

from data_pipelines.streams import StreamConfig
from larvseg_jax.config import CheckpointConfig, Experiment, RunConfig
from larvseg_jax.console import console
from larvseg_jax.devices.sharding import MeshConfig
from larvseg_jax.evaluation.config import EvalConfig
from larvseg_jax.models.vit import ViTConfig
from larvseg_jax.options import defaults
from larvseg_jax.training.optimizer import OptimizerConfig
from larvseg_jax.vocabulary import Vocabulary
from larvseg_jax.vocabulary.catalogue import ClassListsConfig

_WIDE = 100  # characters of a value shown; class lists have thousands


def show(run: Experiment) -> None:
    """Prints the resolved config, a line for each option, those that differ from their defaults with these."""
    settings, usual = _flat(run.settings), _flat(default_settings(run))
    different = 0
    for option, value in settings.items():
        line = Text(f"{option} = {_short(value)}")
        if option not in usual:
            line.stylize("bold")
            line.append("  (has no default)", "dim")
        elif _plain(value) != _plain(usual[option]):
            different += 1
            line.stylize("bold")
            line.append(f"  (default {_short(usual[option])})", "cyan")
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
        "streams": {
            name: defaults(StreamConfig, type(stream.view), type(stream.loss)) for name, stream in run.streams.items()
        },
        "evals": {name: defaults(EvalConfig) for name in run.evals},
    }


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    return dict(_items(settings, prefix))


def _items(settings: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _items(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _plain(value: Any) -> Any:
    """Lists and tuples are the same in a config."""
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def _short(value: Any) -> str:
    text = repr(value)
    if len(text) <= _WIDE or not isinstance(value, list | tuple):
        return text
    return f"{text[:_WIDE]}... ({len(value):,} in all)"
