"""Disk and memory that a run takes, against what is here."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from larvseg_jax.config import Experiment
from larvseg_jax.console import in_bytes
from larvseg_jax.devices.host_memory import host_memory
from larvseg_jax.devices.memory import array_bytes, bytes_by_part
from larvseg_jax.doctor.compiled import StepReport
from larvseg_jax.doctor.findings import Finding, Level, Section
from larvseg_jax.doctor.set_report import SetReport
from larvseg_jax.training.state import TrainState

_ROOM = 0.9  # share of a device's memory that can be counted on


def disk_section(run: Experiment, reports: tuple[SetReport, ...], layout: TrainState | None) -> Section:
    """Size of every data set, of the checkpoints, and the space there is for them."""
    findings: list[Finding] = []
    facts: dict[str, Any] = {"sets": {}}
    for report in reports:
        photos, scanned = report.photos, report.scan
        if photos is None or scanned is None:
            continue
        if photos.stored_bytes is not None:
            size, text = photos.stored_bytes, f"{in_bytes(photos.stored_bytes)} with all splits: {photos.directory}"
        else:
            size = round(scanned.stored_bytes / max(scanned.looked_at, 1) * scanned.total)
            about = "" if scanned.complete else "about "
            text = f"{about}{in_bytes(size)}: {photos.directory}"
        findings.append(Finding("ok", report.where, text))
        facts["sets"][report.where] = size
    free = shutil.disk_usage(_existing(run.workdir)).free
    facts["workdir_free"] = free
    if layout is None:
        findings.append(Finding("note", "workdir", f"{in_bytes(free)} free in {run.workdir}"))
        return Section("disk", tuple(findings), facts)
    checkpoint = sum(array_bytes(leaf).in_all for leaf in jax.tree.leaves(layout))
    kept = run.checkpoint.keep_last
    needed = checkpoint * (kept + 1)
    facts |= {"checkpoint": checkpoint, "checkpoints": needed}
    text = f"a checkpoint takes {in_bytes(checkpoint)}, the last {kept} and the best {in_bytes(needed)}"
    # While one is written, the one it replaces is still there.
    enough = free >= needed + checkpoint
    remedy = "" if enough else f" (and {in_bytes(checkpoint)} more while one is written): free some or change workdir"
    level: Level = "ok" if enough else "error"
    findings.append(Finding(level, "workdir", f"{text}; {in_bytes(free)} free in {run.workdir}{remedy}"))
    return Section("disk", tuple(findings), facts)


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def memory_section(run: Experiment, mesh: Mesh, layout: TrainState, step: StepReport | None) -> Section:
    """Memory of each device: exact for the state, measured for the rest if the step was compiled."""
    parts = state_bytes(layout)
    state = sum(parts.values())
    gradients = parts["parameters"] + parts["class embeddings"]
    limit, of = device_memory(mesh)
    facts: dict[str, Any] = {"per_device": parts, "gradients": gradients, "limit": limit, "limit_of": of}
    sizes = ", ".join(f"{name} {in_bytes(size)}" for name, size in parts.items())
    shape = " x ".join(f"{name} {size}" for name, size in mesh.shape.items())
    findings = [
        Finding("ok", "state", f"{in_bytes(state)} on each device (mesh {shape}): {sizes}"),
        Finding("ok", "gradients", f"{in_bytes(gradients)} more on each device during a step"),
    ]
    needed = state + gradients
    if step is not None and step.failure:
        findings.append(Finding("error", "step", f"cannot be compiled or run: {step.failure}"))
    elif step is not None and step.memory is not None:
        facts["compiled"] = dataclasses.asdict(step.memory)
        needed = step.memory.total
        sizes = ", ".join(f"{name} {in_bytes(size)}" for name, size in facts["compiled"].items())
        findings.append(Finding("ok", "step", f"{in_bytes(needed)} on each device as compiled here: {sizes}"))
    else:
        what = "the backend does not say" if step is not None else "--compile measures them"
        findings.append(Finding("note", "activations", f"not measured: {what}"))
    facts["needed"] = needed
    findings.append(_fits(needed, limit, of, measured="compiled" in facts))
    return Section("memory", tuple(findings), facts)


def _fits(needed: int, limit: int | None, of: str, *, measured: bool) -> Finding:
    if limit is None:
        return Finding("note", "memory", "the devices do not say how much memory they have")
    what = "the step" if measured else "state and gradients"
    text = f"{what}: {in_bytes(needed)} of {in_bytes(limit)} ({of})"
    if needed > limit:
        return Finding("error", "memory", f"{text}: smaller batches, model.remat, bfloat16 or mesh.model > 1")
    if needed > _ROOM * limit:
        return Finding("warning", "memory", f"{text}: little is left")
    return Finding("ok", "memory", text)


def state_bytes(layout: TrainState) -> dict[str, int]:
    """Bytes of a state's parts on one device, from the shapes and shardings of its layout."""
    parts = {
        r"^params/(?!head/class_embeddings$)|^step$": "parameters",
        r"^params/": "class embeddings",
        r"^opt_state/": "optimiser",
        r"^memory\b": "memory",
    }
    return {part: size.on_one for part, size in bytes_by_part(layout, parts).items()}


def device_memory(mesh: Mesh) -> tuple[int | None, str]:
    """Bytes that one device of the mesh can use, and in words which memory they are of; (None, "") if unknown."""
    devices = mesh.devices.ravel()
    stats = devices[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"]), f"of one {devices[0].device_kind}"
    if devices[0].platform != "cpu":
        return None, ""
    return host_memory() // len(devices), f"host memory shared by {len(devices)} CPU device(s)"
