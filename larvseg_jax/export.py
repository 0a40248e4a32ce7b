"""Writes a trained model to one file: larvseg export --run=runs/x [--step=800] --out=model.safetensors.

By default the newest checkpoint; --memory adds the memory bank, --learnt leaves out what the pretrained file has.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from larvseg_jax import cli
from larvseg_jax.config import network_sections
from larvseg_jax.console import console, first_few, in_bytes, stage
from larvseg_jax.disk import write_text
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.metrics import Summary
from larvseg_jax.report.model_card import FILE_NAME, model_card, title
from larvseg_jax.report.report import machine_facts
from larvseg_jax.trained import Trained, load_trained
from larvseg_jax.training.history import NOT_RECORDED, origin
from larvseg_jax.weights.learnt import split_off
from larvseg_jax.weights.places import find_run
from larvseg_jax.weights.safetensors_file import ModelMetadata, SavedModel, arrays_by_path, save_safetensors


def export(
    run: Path, to: Path, step: int | None = None, *, memory: bool = False, pretrained: Path | None = None
) -> None:
    """Exports a checkpoint of a run, or an exported file once more: all its parameters in float32.

    Args:
      run: folder of a run or of a checkpoint, or an exported file.
      to: the .safetensors file to write.
      step: which checkpoint; the newest by default.
      memory: write the method's memory, too.
      pretrained: the weights that an exported file leaves out (`trained.load_trained`).

    Raises:
      UserError: there is no such checkpoint, it is damaged, or the file cannot be written.
    """
    with stage("checkpoint"):
        trained = load_trained(run, step, memory=memory, pretrained=pretrained)
        if not memory:
            trained = dataclasses.replace(trained, memory=None)
    with stage("writing"):
        digest = write_model(trained, to)
    size = to.stat().st_size / 2**20
    classes = len(trained.vocabulary.classes)
    console.print(f"{to}: step {trained.step}, {classes} classes, {size:.1f} MiB, digest {digest[:12]}")


def write_model(trained: Trained, to: Path) -> str:
    """Writes a model to a .safetensors file, with its memory if it has it, all in float32; the digest of its arrays.

    UserError if the file cannot be written.
    """
    stored = {} if trained.memory is None else arrays_by_path(trained.memory)
    return save_safetensors(to, SavedModel(arrays_by_path(trained.params), stored, _metadata(trained)))


def export_learnt(
    run: Path, to: Path, step: int | None = None, pretrained: Path | None = None
) -> tuple[SavedModel, Path]:
    """Exports only what a run has learnt, as float16; the rest stays in the file that it began with.

    The method's memory, which no score needs, is left out.

    Args:
      run: folder of a run or of a checkpoint.
      to: the .safetensors file to write.
      step: which checkpoint; the newest by default.
      pretrained: where the weights lie that the run began with, if not where `config.pretrained` says.

    Returns:
      what was written, and where the rest lies.

    Raises:
      UserError: as `export` and `weights.learnt.split_off`; the run began from scratch, or its scores need its memory.
    """
    if run.is_file():
        raise UserError(f"{run} is a file: --learnt takes the folder of a run or of a checkpoint")
    with stage("checkpoint"):
        trained = load_trained(run, step)
        began_with = pretrained or Path(str(trained.settings.get("pretrained", ""))).expanduser()
        if began_with == Path():
            raise UserError(f"{run} began from scratch: no other file has its weights, export all (without --learnt)")
        if trained.method.scorer(trained.vocabulary.label_set()).reads_memory:
            raise UserError(f"{run}: its scores need its memory: export all (--memory, without --learnt)")
    with stage("writing"):
        vit = network_sections(trained.settings)[1]
        learnt = split_off(arrays_by_path(trained.params), began_with, vit, run)
        metadata = dataclasses.replace(_metadata(trained), frozen=learnt.frozen, pretrained=learnt.source)
        saved = SavedModel(learnt.arrays, {}, metadata)
        digest = save_safetensors(to, saved)
    size = in_bytes(to.stat().st_size)
    parts = f"{len(learnt.arrays)} arrays in float16, {len(learnt.frozen)} left to {learnt.source}, no memory"
    console.print(f"{to}: step {trained.step}, {len(metadata.classes)} classes, {size}, digest {digest[:12]}; {parts}")
    return saved, began_with


def check_card(to: Path) -> None:
    """UserError if the card of `to` would replace a file that is none of an earlier export of the same name."""
    path = to.with_name(FILE_NAME)
    ours = path.is_file() and path.read_text("utf-8", errors="replace").startswith(f"{title(to.name)}\n")
    if path.exists() and not ours:
        raise UserError(f"{path} is there and no card of {to.name}: give an --out in another folder, or move it away")


def write_card(
    run: Path,
    to: Path,
    saved: SavedModel,
    frozen: Path,
    scores: Mapping[str, Summary],
    licences: Sequence[str] = (),
) -> Path:
    """Writes model_card.md beside an exported file, of what its run has recorded, and returns its path.

    Args:
      run: the run's folder, or that of a checkpoint.
      to: the exported file.
      saved: what is in it.
      frozen: the file or run that has the weights which are not.
      scores: name of an evaluation of the config -> the file's scores; none if it was not evaluated.
      licences: lines on the terms of use, which nobody but the user knows.
    """
    about = saved.metadata
    evaluations = about.settings.get("evals", {})
    others = [name for name in about.classes if name not in {*about.base, *about.novel}]
    text = model_card(
        to.name,
        _facts(run, to, saved, frozen),
        shlex.join(["larvseg", "predict", f"--run={to.name}", f"--pretrained={frozen.name}", "--image=photo.jpg"]),
        {name: (_photos(evaluations[name]), summary) for name, summary in scores.items()},
        {"base": about.base, "novel": about.novel, "others": others},
        licences,
        NOT_RECORDED,
    )
    path = to.with_name(FILE_NAME)
    write_text(path, text)
    console.print(f"{path}: its card")
    return path


def _facts(run: Path, to: Path, saved: SavedModel, frozen: Path) -> dict[str, str]:
    """What is known of an exported file and its run; NOT_RECORDED where nothing is."""
    about, settings = saved.metadata, saved.metadata.settings
    made, here = origin(find_run(run, None)[0]), machine_facts()
    commits = made.commits if NOT_RECORDED not in made.commits else (about.versions.get("commit", NOT_RECORDED),)
    parts = sorted({"/".join(name.split("/")[: 3 if name.startswith("backbone/") else 1]) for name in saved.params})
    numbers = sum(x.size for x in saved.params.values())
    needed = f"{about.pretrained}: {len(about.frozen)} arrays, each checked when the file is read"
    steps = settings.get("total_steps", NOT_RECORDED)
    return {
        "file": f"{to.name}, {_size_and_sha(to)}",
        "holds": f"{len(saved.params)} arrays, {numbers:,} numbers in float16: {first_few(parts, 12)}",
        "needs": f"{needed}; that file: {_size_and_sha(frozen)}" if frozen.is_file() else needed,
        "left out": "the method's memory, which inference does not need",
        "method": settings["method"]["name"],
        "run": f"{settings.get('name', NOT_RECORDED)}, step {about.step} of {steps}",
        "seed": str(settings.get("seed", NOT_RECORDED)),
        **{f"data of stream {name}": _photos(section) for name, section in settings.get("streams", {}).items()},
        "command": first_few(made.commands, separator="; then "),
        "commit": first_few(commits),
        "machine": first_few(made.machines, separator="; then "),
        "date of training": first_few(made.dates),
        "packages": first_few([f"{name} {v}" for name, v in about.versions.items() if name != "commit"], 99),
        "this card": f"{here['written']}, commit {here['commit']}, {here['devices']}, {here['processor']}",
    }


def _photos(section: Mapping[str, Any]) -> str:
    """What the photos of a stream or an evaluation are: "folder voc12_animals, split val, the first 100"."""
    source = section.get("source", {})
    named = [f"{kind} {source[kind]}" for kind in ("tfds", "folder", "class_folders", "tagged") if source.get(kind)]
    split = f", split {source['split']}" if source.get("split") else ""
    limit = f", the first {section['limit']}" if section.get("limit") else ""
    return f"{', '.join(named) or NOT_RECORDED}{split}{limit}"


def _size_and_sha(file: Path) -> str:
    with file.open("rb") as stream:
        sha = hashlib.file_digest(stream, "sha256").hexdigest()
    return f"{in_bytes(file.stat().st_size)}, SHA-256 {sha}"


def _metadata(trained: Trained) -> ModelMetadata:
    words = trained.vocabulary
    return ModelMetadata(
        classes=words.classes,
        base=words.base,
        novel=words.novel,
        background=words.background,
        source=str(trained.source),
        step=trained.step,
        settings=trained.settings,
        versions=trained.versions,
    )


if __name__ == "__main__":
    cli.run("export")
