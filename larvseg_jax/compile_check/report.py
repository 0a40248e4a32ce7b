"""Compiles the train step for a target and tells what it takes: memory, exchanges among chips, predicted time."""

from __future__ import annotations

import collections
import dataclasses
import json
import re
import time
from pathlib import Path
from typing import Any

import jax
import ml_collections
from jax.sharding import Mesh
from rich.table import Table

from larvseg_jax import assemble
from larvseg_jax.compile_check.cudnn import cudnn_of
from larvseg_jax.compile_check.program import Collective, read_collectives
from larvseg_jax.compile_check.step_time import StepTime, predicted_time
from larvseg_jax.compile_check.target import Target
from larvseg_jax.compile_check.traffic import memory_traffic
from larvseg_jax.config import Experiment
from larvseg_jax.console import console, in_bytes, in_gib
from larvseg_jax.devices.memory import bytes_by_part, program_memory
from larvseg_jax.disk import write_text
from larvseg_jax.errors import UserError
from larvseg_jax.models.attention_choice import attention_line
from larvseg_jax.training.state import TrainState

_QUICK: dict[str, Any] = {"exec_time_optimization_effort": -1.0}


@dataclasses.dataclass(frozen=True)
class Report:
    """What compiling the step showed. Sizes are bytes on one chip.

    Attributes:
      batch: pictures of a step, by stream, over all chips.
      notes: what differs from the config, or what training would refuse.
      seconds: that compiling took.
      failure: why it does not compile or fit, "" if it does.
      arrays: the state and the batch by kind, as their shapes have it.
      memory: what XLA reserves; "total" is what has to fit. Empty if it did not compile.
      flops: model FLOPs of a step over all chips, by formula; 0: the method has none.
      chip_flops: what one chip does of them, work that several chips repeat included.
      xla_flops, hbm_bytes: one chip's as XLA counts them, the body of a loop once; of a GPU 0 and our own count.
    """

    target: str
    mesh: dict[str, int]
    batch: dict[str, int]
    notes: tuple[str, ...]
    quick: bool
    seconds: float
    failure: str
    arrays: dict[str, int]
    available: int
    flops: float
    chip_flops: float
    source: str
    memory: dict[str, int] = dataclasses.field(default_factory=dict)
    xla_flops: float = 0.0
    hbm_bytes: float = 0.0
    collectives: tuple[Collective, ...] = ()
    time: StepTime | None = None

    @property
    def fits(self) -> bool:
        """Whether the step fits into the memory of a chip."""
        return not self.failure


def fit_batch(config: ml_collections.ConfigDict, mesh: Mesh, images_per_chip: int) -> tuple[str, ...]:
    """Sets the batch sizes of a config for a mesh, see --images_per_chip; returns what it changed, in words."""
    parts, changed = mesh.shape["data"], []
    total = sum(stream.batch_size for stream in config.streams.values())
    for name, stream in config.streams.items():
        before = stream.batch_size
        if images_per_chip:
            stream.batch_size, rest = divmod(before * images_per_chip * mesh.size, total)
            if rest or stream.batch_size % parts:
                raise UserError(
                    f"--images_per_chip={images_per_chip} gives stream {name} "
                    f"{before * images_per_chip * mesh.size / total:g} pictures, which mesh {dict(mesh.shape)} does "
                    f"not divide: use a multiple of {total // before}"
                )
        else:
            stream.batch_size = -(-before // parts) * parts
        if stream.batch_size != before:
            changed.append(f"streams.{name}.batch_size={stream.batch_size} instead of {before}")
    return tuple(changed)


def check(
    run: Experiment, mesh: Mesh, target: Target, *, quick: bool, changed: tuple[str, ...] = (), refusal: str = ""
) -> Report:
    """Compiles the step of a run over a mesh of a target. `quick`: with little optimisation."""
    with cudnn_of(target):
        return _check(run, mesh, target, quick, changed, refusal)


def _check(run: Experiment, mesh: Mesh, target: Target, quick: bool, changed: tuple[str, ...], refusal: str) -> Report:
    method = assemble.make_method(run, mesh)
    layout, batch = assemble.state_layout(run, mesh, method), assemble.abstract_batch(run, mesh)
    chip_flops = method.flops(mesh.shape["data"], mesh.shape["model"])
    refused = f"training refuses this mesh: {refusal}" if refusal else ""
    notes = (*changed, *filter(None, (refused, attention_line(run.vit, target.devices[0]))))
    report = Report(
        target=target.name,
        mesh=dict(mesh.shape),
        batch={name: arrays["image"].shape[0] for name, arrays in batch.items()},
        notes=notes,
        quick=quick,
        seconds=0.0,
        failure="",
        arrays=arrays_by_kind(layout, batch),
        available=target.chip.memory,
        flops=float(sum(method.flops().values())),
        chip_flops=float(sum(chip_flops.values())),
        source=target.chip.source,
    )
    with console.status(f"compiling for {target.name}, mesh {dict(mesh.shape)}: minutes for a ViT-B"):
        begun = time.monotonic()
        try:
            compiled = assemble.lower_step(run, mesh, layout, method).compile(_QUICK if quick else None)
        except jax.errors.JaxRuntimeError as error:  # not enough memory is an error of the TPU's compiler
            return dataclasses.replace(report, seconds=time.monotonic() - begun, failure=reason_of(str(error)))
        seconds = time.monotonic() - begun
    program = compiled.as_text() or ""
    sent = read_collectives(program, dict(mesh.shape))
    cost = compiled.cost_analysis() or {}  # None for a GPU
    hbm_bytes = float(cost.get("bytes accessed") or memory_traffic(program))
    memory = _memory(compiled)
    failure = ""
    if memory["total"] > target.chip.memory:  # the GPU's compiler does not mind
        failure = f"out of memory: needs {in_gib(memory['total'])} of {in_gib(target.chip.memory)}"
    return dataclasses.replace(
        report,
        seconds=seconds,
        failure=failure,
        memory=memory,
        xla_flops=float(cost.get("flops", 0.0)),
        hbm_bytes=hbm_bytes,
        collectives=sent,
        time=predicted_time(chip_flops, run.vit.dtype, target, hbm_bytes, sent),
    )


def arrays_by_kind(layout: TrainState, batch: Any) -> dict[str, int]:
    """Bytes on one chip of the parameters of backbone, head and class table, optimiser, bank and batch."""
    parts = {
        r"^params/backbone/": "backbone",
        r"^params/head/class_embeddings$": "class table",
        r"^params/": "rest of the head",
        r"^opt_state/": "optimiser state",
        r"^memory\b": "memory",
        r"^batch/": "batch",
    }
    trees = {name: tree for name, tree in vars(layout).items() if name != "step"} | {"batch": batch}
    return {part: size.on_one for part, size in bytes_by_part(trees, parts).items()}


def _memory(compiled: jax.stages.Compiled) -> dict[str, int]:
    found = program_memory(compiled)
    assert found is not None  # the compilers for TPU and GPU always say
    return {
        "arguments": found.arguments,
        "new outputs": found.new_output,
        "temporary": found.temporary,
        "code": found.code,
        "total": found.total,
    }


def reason_of(error: str) -> str:
    """One line of a compiler's error, with the numbers it is about."""
    text = " ".join(error.split())
    for pattern in (r"Used ([\d.]+\w) of ([\d.]+\w) hbm", r"\(([\d.]+\w)\) exceeds available HBM \(([\d.]+\w)\)"):
        if found := re.search(pattern, text):
            return f"out of memory: needs {found[1]} of {found[2]} on every chip"
    return f"does not compile: {text[:300]}"


def print_report(report: Report) -> None:
    """The findings on the console."""
    effort = "quick (little optimisation)" if report.quick else "full optimisation"
    console.print(f"{report.target}, mesh {report.mesh}, pictures of a step {report.batch}")
    for note in report.notes:
        console.print(f"  {note}")
    console.print(f"compiled in {report.seconds:.0f} s, {effort}")
    if report.failure:
        console.print(f"does NOT fit: {report.failure}")
    elif report.memory:
        console.print(f"fits: {in_gib(report.memory['total'])} of {in_gib(report.available)} on every chip")
    console.print(_memory_table(report))
    if report.time is None:
        return
    console.print(_collective_table(report))
    work = f"{report.flops:.3g} FLOP in all, {report.chip_flops:.3g} on a chip with what several repeat (by formula)"
    if not report.flops:
        work = "no formula for this method"
    console.print(f"work: {work}; XLA counts {report.xla_flops:.3g} on a chip, loops once")
    console.print(_time_text(report))


def _memory_table(report: Report) -> Table:
    table = _table("memory of a chip", ("kind", "bytes"))
    for kind, size in report.arrays.items():
        table.add_row(kind, in_bytes(size))
    for kind, size in report.memory.items():
        table.add_row(f"XLA: {kind}", in_bytes(size), style="bold" if kind == "total" else None)
    return table


def _collective_table(report: Report) -> Table:
    table = _table("what chips send in a step", ("exchange", "among", "chips", "times", "results", "sent by a chip"))
    for (kind, axes, group, loops), some in grouped(report.collectives).items():
        among = " x ".join(axes) + (" (in a loop, counted once)" if loops else "")
        sizes = in_bytes(sum(x.size for x in some)), in_bytes(sum(x.sent for x in some))
        table.add_row(kind, among, str(group), str(len(some)), *sizes)
    return table


def grouped(exchanges: tuple[Collective, ...]) -> dict[tuple[str, tuple[str, ...], int, bool], list[Collective]]:
    """The exchanges by kind, mesh axes, size of the group and whether in a loop; most bytes first."""
    groups = collections.defaultdict(list)
    for exchange in sorted(exchanges, key=lambda x: -x.sent):
        groups[exchange.kind, exchange.axes, exchange.group, exchange.in_loop].append(exchange)
    return dict(sorted(groups.items(), key=lambda item: -sum(x.sent for x in item[1])))


def _time_text(report: Report) -> str:
    times = report.time
    assert times is not None
    parts = ", ".join(f"{name} {1000 * value:.2f} ms" for name, value in times.known.items())
    if times.compute is None:
        parts += ", compute unknown and left out"
    if not report.xla_flops:
        parts += " (HBM traffic by our own count: the GPU's compiler does not tell)"
    return (
        f"predicted, from published peaks ({report.source}), not measured: {parts}; bound by {times.bound}: "
        f"{1000 * times.least:.2f} ms a step if all overlaps, {1000 * times.without_overlap:.2f} ms if nothing does"
    )


def write_json(report: Report, path: Path) -> None:
    """The same findings as JSON."""
    exchanges = [
        {"kind": kind, "axes": axes, "chips": group, "in_loop": loops, "times": len(some)}
        | {"result_bytes": sum(x.size for x in some), "sent_bytes": round(sum(x.sent for x in some))}
        for (kind, axes, group, loops), some in grouped(report.collectives).items()
    ]
    values = {**dataclasses.asdict(report), "fits": report.fits, "collectives": exchanges}
    if report.time is not None:
        values["predicted_seconds"] = {
            **values.pop("time"),
            "bound": report.time.bound,
            "least": report.time.least,
            "without_overlap": report.time.without_overlap,
        }
    write_text(path, json.dumps(values, indent=2) + "\n", "give another --json")


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(box=None, title=title, title_justify="left", pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < 2 else "right")
    return table
