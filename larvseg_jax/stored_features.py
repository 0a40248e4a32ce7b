"""The cached features of a run (`features` in its config): what they must be, and its streams with them in place.

They take the place of pictures, and so must be what the run itself would make of these: of the same options of
backbone and streams, checked before anything is compiled, and by the same weights, checked once these are known.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Int64, PyTree

from data_pipelines.feature_files import FeatureFacts, FeatureRecords, read_facts
from data_pipelines.features import FeatureStream, FeatureView
from data_pipelines.streams import Stream, StreamConfig, open_stream, recorded
from larvseg_jax.config import Experiment
from larvseg_jax.console import first_few
from larvseg_jax.devices.sharding import path_name
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.config import EvalConfig
from larvseg_jax.models.frozen import below_block, frozen_blocks
from larvseg_jax.options import changes
from larvseg_jax.vocabulary import LabelSet
from larvseg_jax.weights.digest import digest

# Of the backbone's options those that tokens do not depend on: they may be made in bfloat16 and trained on in float32.
_ANY = ("depth", "drop_path", "dtype", "remat")
_REMEDY = "change it back, or make them anew (python -m larvseg_jax.features)"


def streams_of(run: Experiment) -> Mapping[str, StreamConfig]:
    """The streams as a step sees them: where the run has features, with the tokens of these in place of pictures.

    Raises:
      UserError: there are none, or they are not of this run's backbone, stream or classes, or of blocks that move.
    """
    if run.features is None:
        return run.streams
    found = {}
    for name, stream in run.streams.items():
        facts = read_facts(run.features / name)
        _check_options(run, name, run.features / name, facts)
        found[name] = dataclasses.replace(stream, view=FeatureView(stream.view, facts))
    return found


def first_block(run: Experiment) -> int:
    """The block that the step begins with; 0 without features. UserError where streams begin at several."""
    folder = run.features
    if folder is None:
        return 0
    blocks = {name: read_facts(folder / name).blocks for name in run.streams}
    if len(set(blocks.values())) > 1:
        raise UserError(f"{folder} has features of several depths ({blocks}): make all with the same --blocks")
    return next(iter(blocks.values()))


def open_streams(run: Experiment) -> dict[str, Stream]:
    """The run's streams, reading features; UserError as `streams_of`, or if shards are missing."""
    assert run.features is not None
    opened: dict[str, Stream] = {}
    for name, config in streams_of(run).items():
        assert isinstance(config.view, FeatureView)
        records = FeatureRecords(run.features / name, config.view.facts)
        label_set = run.catalogue.label_set(run.streams[name])
        opened[name] = FeatureStream(records, label_set, config.view, config.batch_size, _order(run, name, label_set))
    return opened


def _order(run: Experiment, name: str, label_set: LabelSet) -> Int64[np.ndarray, " places"] | None:
    """The order of a stream's photos, as without features; the photos must be there if it is balanced."""
    stream = run.streams[name]
    if not stream.rare_below:
        return None
    return open_stream(stream, run.data_root, label_set, run.max_megapixels).order


def evaluation_folder(name: str) -> str:
    """The folder of an evaluation, among those of the streams."""
    return f"evals.{name}"


def open_evaluation(run: Experiment, name: str, photos: int) -> tuple[FeatureRecords | None, str]:
    """The tokens of the windows of an evaluation's first `photos` photos, and where it gets its windows from, in words.

    None where there are none, or of other options than the evaluation has today: it looks at its photos then.

    Raises:
      UserError: shards are missing or damaged.
    """
    if run.features is None:
        return None, "photos"
    folder = run.features / evaluation_folder(name)
    if not folder.exists():
        return None, f"photos, since {folder} does not exist"
    facts = read_facts(folder)
    differences = _other_windows(run, name, facts)
    if facts.photos < photos:
        differences.append(f"it has {photos} photos, was {facts.photos}")
    if differences:
        return None, f"photos, since {folder} holds something else ({first_few(differences, 3, '; ')})"
    return FeatureRecords(folder, facts), "features"


def data_facts(run: Experiment, name: str) -> dict[str, Any]:
    """What the batches of a stream depend on besides the config: which features they are; {} without."""
    if run.features is None:
        return {}
    facts = read_facts(run.features / name)
    return {"features": {"blocks": facts.blocks, "views": facts.views, "seed": facts.seed, "dtype": facts.dtype}}


def model_options(run: Experiment) -> dict[str, Any]:
    """The options of the backbone that tokens depend on."""
    return _plain({name: value for name, value in run.vit.recorded().items() if name not in _ANY})


def stream_options(run: Experiment, name: str) -> dict[str, Any]:
    """The options of a stream that its features depend on."""
    stream: Any = run.streams[name]  # its view is a dataclass, of which its protocol says nothing
    aliases = {"aliases": run.vocabulary.aliases} if run.vocabulary.aliases else {}  # none: as older features have it
    return _plain(recorded({"source": dataclasses.asdict(stream.source), **dataclasses.asdict(stream.view), **aliases}))


def evaluation_options(config: EvalConfig) -> dict[str, Any]:
    """The options of an evaluation that the tokens of its windows depend on."""
    windows = {"scale": config.scale, "window": config.window, "stride": config.stride}
    return _plain(recorded({"source": dataclasses.asdict(config.source), **windows}))


def weights_below(params: PyTree, block: int) -> dict[str, int]:
    """Path -> digest of every parameter that has a part in the tokens which enter a block."""
    leaves = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    found = {path: leaf for path, leaf in leaves.items() if below_block(path, block)}
    return {path: int(value) for path, value in jax.device_get(digest(found)).items()}


def check_weights(run: Experiment, params: PyTree) -> None:
    """UserError if the run's features were made with other weights than it has now."""
    if run.features is None:
        return
    ours, folders = weights_below(params, first_block(run)), list(run.streams)
    for name in run.evals:
        folder = evaluation_folder(name)
        if (run.features / folder).exists() and not _other_windows(run, name, read_facts(run.features / folder)):
            folders.append(folder)
    for name in folders:
        facts = read_facts(run.features / name)
        other = [
            path for path in sorted(ours.keys() | facts.weights.keys()) if ours.get(path) != facts.weights.get(path)
        ]
        if other:
            raise UserError(
                f"{run.features / name} holds features of other weights than this run's (those of "
                f"{facts.made.get('weights', '?')}; different are {first_few(other, 3)}): {_REMEDY}"
            )


def _other_windows(run: Experiment, name: str, facts: FeatureFacts) -> list[str]:
    """In what the features of an evaluation's windows differ from those that it would make."""
    here = {"model": model_options(run), "evals": evaluation_options(run.evals[name]), "blocks": first_block(run)}
    return changes({"model": facts.model, "evals": facts.stream, "blocks": facts.blocks}, here)


def _check_options(run: Experiment, name: str, folder: Path, facts: FeatureFacts) -> None:
    here = {"model": model_options(run), f"streams.{name}": stream_options(run, name)}
    differences = changes({"model": facts.model, f"streams.{name}": facts.stream}, here)
    classes = run.catalogue.label_set(run.streams[name]).names
    if facts.classes != classes:
        other = [f"{a!r}, was {b!r}" for a, b in zip(classes, facts.classes, strict=False) if a != b]
        first = f"the first that differs is {other[0]}" if other else "the first ones are the same"
        differences.append(f"streams.{name} has {len(classes)} classes, was {len(facts.classes)}; {first}")
    if differences:
        raise UserError(f"{folder} holds features of something else ({first_few(differences, 5, '; ')}): {_REMEDY}")
    frozen = frozen_blocks(run.vit, run.optimizer.frozen)
    if facts.blocks > frozen:
        raise UserError(
            f"{folder} holds features of {facts.blocks} blocks, and optimizer.frozen={run.optimizer.frozen!r} freezes "
            f"the first {frozen}: freeze as many, or make features with --blocks={frozen}"
            if frozen
            else f"{folder} holds features, and optimizer.frozen={run.optimizer.frozen!r} freezes no block of the "
            "backbone from below: set it to '^backbone/', or train without features"
        )


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back."""
    return json.loads(json.dumps(options))
