"""Versions, devices, weights, and what the workdir holds already."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from larvseg_jax.config import Experiment
from larvseg_jax.console import in_bytes
from larvseg_jax.devices.host_memory import host_memory
from larvseg_jax.devices.mesh import padded_batch_size
from larvseg_jax.doctor.findings import Finding, Section
from larvseg_jax.errors import UserError
from larvseg_jax.provenance import MISSING, versions
from larvseg_jax.training.state import TrainState
from larvseg_jax.weights import checkpoint
from larvseg_jax.weights.pretrained import check_pretrained


def machine_section(run: Experiment, mesh: Mesh | UserError, layout: TrainState | None) -> Section:
    """What the run would run on, and start from."""
    findings = [*_versions(), *_opencv(), *_devices(run, mesh), _weights(run, layout), *_workdir(run)]
    facts: dict[str, Any] = {
        "versions": versions(),
        "python": platform.python_version(),
        "devices": [device.device_kind for device in jax.devices()],
        "platform": jax.default_backend(),
        "host_memory": host_memory(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "pretrained": run.pretrained,
    }
    return Section("machine", tuple(findings), facts)


def _versions() -> list[Finding]:
    found = versions()
    text = ", ".join([f"Python {platform.python_version()}", *(f"{k} {v}" for k, v in found.items())])
    missing = [name for name, version in found.items() if version == MISSING]
    if missing:
        text = f"{', '.join(missing)} not installed: pip install -r requirements.txt ({text})"
    return [Finding("error" if missing else "ok", "versions", text)]


def _opencv() -> list[Finding]:
    """Other packages of OpenCV put another library in its place, one that needs libGL."""
    others = []
    for name in ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"):
        try:
            others.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    if others:
        remedy = "uninstall it and install opencv-python-headless anew"
        return [Finding("warning", "OpenCV", f"{', '.join(others)} is installed, too: {remedy}")]
    import cv2

    return [Finding("ok", "OpenCV", f"{cv2.__version__} without libGL, reads photos here")]


def _devices(run: Experiment, mesh: Mesh | UserError) -> list[Finding]:
    devices = jax.devices()
    stats = devices[0].memory_stats() or {}
    memory = f", {in_bytes(stats['bytes_limit'])} each" if "bytes_limit" in stats else ""
    text = f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform}){memory}; "
    text += f"host: {os.cpu_count()} cores, {in_bytes(host_memory())}"
    findings = [Finding("ok", "devices", text)]
    if isinstance(mesh, UserError):
        return [*findings, Finding("error", "mesh", str(mesh))]
    for name, stream in run.streams.items():
        try:
            size = padded_batch_size(name, stream.batch_size, mesh, run.batch_padding)
        except UserError as error:
            findings.append(Finding("error", f"streams.{name}", str(error)))
            continue
        if size != stream.batch_size:
            text = f"batches of {stream.batch_size} are filled up to {size} for {mesh.shape['data']} devices"
            findings.append(Finding("note", f"streams.{name}", text))
    return findings


def _weights(run: Experiment, layout: TrainState | None) -> Finding:
    """Whether the pretrained weights are there, and fit."""
    if not run.pretrained:
        return Finding("ok", "pretrained", "none: from scratch")
    if layout is None:
        if not Path(run.pretrained).exists():
            return Finding("error", "pretrained", f"{run.pretrained} is not there: see docs/weights.md")
        return Finding("note", "pretrained", f"{run.pretrained}: whether it fits is seen when the run starts")
    try:
        classes = run.vocabulary.classes
        report = check_pretrained(run.pretrained, layout.params, run.vit, classes, run.pretrained_parts)
    except UserError as error:
        return Finding("error", "pretrained", str(error))
    return Finding("ok", "pretrained", f"{report.source} fits: {report.size}, {len(report.loaded)} arrays")


def _workdir(run: Experiment) -> list[Finding]:
    """The checkpoints in the workdir: training continues from them, so they must have the classes of the config."""
    folder = run.workdir / "checkpoints"
    if not folder.is_dir():
        return []
    with checkpoint.Checkpoints(run.workdir, read_only=True) as checkpoints:
        steps = checkpoints.steps()
        if not steps:
            return []
        try:
            checkpoint.check_same_vocabulary(checkpoints.record(steps[-1]), run.vocabulary.classes, folder)
        except UserError as error:
            return [Finding("error", "workdir", str(error))]
    text = f"{folder} has checkpoints up to step {steps[-1]}: the run goes on from there"
    return [Finding("note", "workdir", text)]
