"""What a checkpoint says about itself, and what of it must be the same for a run to go on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax

from larvseg_jax import old_settings
from larvseg_jax.console import first_few
from larvseg_jax.errors import UserError
from larvseg_jax.models.vit_config import recorded
from larvseg_jax.options import changes
from larvseg_jax.provenance import versions
from larvseg_jax.training.state import TrainState

_REMEDY = "give this run another workdir, or move the folder away"


@dataclasses.dataclass(frozen=True)
class Record:
    """What a checkpoint says about itself.

    Attributes:
      settings: the config, as plain values.
      classes: class names in row order.
      data: what makes the batch of step i: seed, streams, batch sizes, number of pictures.
      arrays: path -> "dtype[shape]" of every leaf of the state.
      versions: of Python's packages, and the commit of the code.
      step: after how many steps it was saved; None in checkpoints of the code before 26 November 2026.
      scores: name -> score of the evaluation that was made of it, {} if none was.
      memory_name: what the stored arrays call the field `memory`: "bank" until version 0.1.
    """

    settings: Mapping[str, Any]
    classes: tuple[str, ...]
    data: Mapping[str, Any]
    arrays: Mapping[str, str]
    versions: Mapping[str, str]
    step: int | None = None
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    memory_name: str = "memory"

    @classmethod
    def of(
        cls, settings: Mapping[str, Any], classes: tuple[str, ...], data: Mapping[str, Any], state: TrainState
    ) -> Record:
        """The record of a run as it is now."""
        return cls(_plain(settings), classes, _plain(data), describe(state), versions())

    @classmethod
    def from_json(cls, text: Mapping[str, Any]) -> Record:
        """Reads what `dataclasses.asdict` wrote, also by the code of version 0.1."""
        old = any(path.startswith(".bank") for path in text["arrays"])
        return cls(
            settings=old_settings.upgraded(text["settings"]),
            classes=tuple(text["classes"]),
            # Until November 2026 the length of a run was among what makes its batches, which it does not.
            data={k: v for k, v in old_settings.upgraded_data(text["data"]).items() if k != "total_steps"},
            arrays={path.replace(".bank.", ".memory.", 1): array for path, array in text["arrays"].items()},
            versions=text["versions"],
            step=text.get("step"),
            scores=text.get("scores", {}),
            memory_name="bank" if old else "memory",
        )


def check_same_vocabulary(found: Record, classes: tuple[str, ...], folder: Path) -> None:
    """UserError if a checkpoint was trained with other classes, or with the same in another order."""
    if found.classes != classes:
        differing = sorted(set(classes) ^ set(found.classes))[:3]
        raise UserError(
            f"{folder} was trained with another vocabulary ({len(found.classes)} classes, here {len(classes)}; "
            f"{f'differing: {differing}' if differing else 'the same names in another order'}): {_REMEDY}"
        )


def check_same_data(found: Record, expected: Record, folder: Path, accept: Collection[str] = ()) -> list[str]:
    """What differs in what makes the batches, a line each; UserError if something does and "data" is not accepted."""
    differences = changes(found.data, expected.data)
    if differences and "data" not in accept:
        raise UserError(
            f"{folder} was trained on other batches ({first_few(differences, 8, separator='; ')}): "
            f"change it back, go on with the new ones by --accept=data, or {_REMEDY}"
        )
    return differences


def changed_options(found: Record, expected: Record) -> list[str]:
    """The options that are not as they were, a line each, other than those of the data."""
    data = {line.partition(":")[0] for line in changes(found.data, expected.data)}
    then, now = (_without_newer(record.settings) for record in (found, expected))
    return [line for line in changes(then, now) if line.partition(":")[0] not in data]


def _without_newer(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without options of the backbone that earlier code did not have, where they are not in use."""
    model = settings.get("model")
    return {**settings, "model": recorded(model)} if isinstance(model, Mapping) else settings


def describe(state: TrainState) -> dict[str, str]:
    """Path -> dtype[shape] of every leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves}


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back: tuples become lists, so that records compare equal."""
    return json.loads(json.dumps(settings))
