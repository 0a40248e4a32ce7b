"""All checks of a run, in the order in which they are shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import jax
from jax.sharding import Mesh

from larvseg_jax.assemble import state_layout
from larvseg_jax.config import Experiment
from larvseg_jax.devices.mesh import make_mesh, padded_batch_size
from larvseg_jax.doctor import class_counts, classes, data, machine, resources, sheet, speed, tagged
from larvseg_jax.doctor.compiled import StepReport, try_step
from larvseg_jax.doctor.findings import Finding, Section, count
from larvseg_jax.doctor.misfiled import with_misfiled
from larvseg_jax.doctor.set_report import SetReport, inspect
from larvseg_jax.doctor.show import show_section, show_summary, write_json
from larvseg_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Extent:
    """How much is looked at.

    Attributes:
      photos: of each set; None for all.
      seconds: for which the pipeline is timed; 0 = not at all.
      compile: compile the step to learn its memory.
      step: compile and run it to learn its time.
      sheet: where the contact sheet goes.
    """

    photos: int | None
    seconds: float
    compile: bool
    step: bool
    sheet: Path


def diagnose(run: Experiment, extent: Extent, json_file: Path | None = None) -> int:
    """Examines a run, prints what is found and returns the exit code: 0, or 1 if there are errors.

    UserError if the sheet or `json_file` cannot be written.
    """
    sections = []
    for section in examine(run, extent):
        sections.append(section)
        show_section(section)
    show_summary(sections)
    if json_file is not None:
        write_json(json_file, run.name, sections)
    return 1 if count(sections)["error"] else 0


def examine(run: Experiment, extent: Extent) -> Iterator[Section]:
    """The sections one after the other, each as soon as it is known; what is missing stops none of the others."""
    reports = with_misfiled(run, inspect(run, extent.photos))
    yield data.found_section(run, reports)
    yield data.unreadable_section(reports)
    yield data.labels_section(reports)
    counts = class_counts.class_counts(run, reports)
    yield class_counts.counts_section(run, reports, counts)
    yield tagged.tagged_section(run, reports)
    yield classes.imagenet_section(reports)
    yield classes.classes_section(run)
    yield sheet.sheet_section(run, reports, counts, extent.sheet)
    mesh = _mesh(run)
    layout = None if isinstance(mesh, UserError) else state_layout(run, mesh)
    yield resources.disk_section(run, reports, layout)
    step = None
    if isinstance(mesh, Mesh) and layout is not None:
        step = _step(run, mesh, extent)
        yield resources.memory_section(run, mesh, layout, step)
    else:
        yield Section("memory", (Finding("note", "memory", "not known: there is no mesh, see machine"),))
    yield _speed(run, reports, extent.seconds, step)
    yield machine.machine_section(run, mesh, layout)


def _mesh(run: Experiment) -> Mesh | UserError:
    try:
        return make_mesh(run.mesh.data, run.mesh.model)
    except UserError as error:
        return error


def _step(run: Experiment, mesh: Mesh, extent: Extent) -> StepReport | None:
    """Compiled, and run, as far as asked for and as the mesh divides the batches (else `machine` says so)."""
    if not (extent.compile or extent.step):
        return None
    try:
        for name, stream in run.streams.items():
            padded_batch_size(name, stream.batch_size, mesh, run.batch_padding)
    except UserError as error:
        return StepReport(None, failure=str(error))
    return try_step(run, mesh, execute=extent.step)


def _speed(run: Experiment, reports: tuple[SetReport, ...], seconds: float, step: StepReport | None) -> Section:
    streams = {
        report.where.partition(".")[2]: report.stream for report in reports if report.where.startswith("streams.")
    }
    return speed.speed_section(run, streams, seconds, step)


def on_accelerator() -> bool:
    """Whether there is anything faster than a CPU here."""
    return jax.default_backend() != "cpu"
