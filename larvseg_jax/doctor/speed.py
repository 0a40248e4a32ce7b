"""How fast the data comes, and how fast the step takes it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any

from data_pipelines.streams import Stream, iterate, step_batches
from larvseg_jax.config import Experiment
from larvseg_jax.doctor.compiled import StepReport
from larvseg_jax.doctor.findings import Finding, Section
from larvseg_jax.errors import UserError
from larvseg_jax.report.metric_log import read_history

_ENOUGH = 1.1  # data this much faster than the step keeps up when the machine does other things, too


def speed_section(
    run: Experiment, streams: Mapping[str, Stream | None], seconds: float, step: StepReport | None
) -> Section:
    """Images per second of the pipeline against those of the step."""
    findings: list[Finding] = []
    facts: dict[str, Any] = {"threads": run.data_threads}
    pictures = sum(stream.batch_size for stream in run.streams.values())
    data_rate = _data_rate(run, streams, seconds, pictures, findings, facts)
    step_rate = _step_rate(run, pictures, step, findings, facts)
    if data_rate and step_rate:
        text = f"data: {data_rate:.2f} steps/s; the device takes {step_rate:.2f}"
        if data_rate >= _ENOUGH * step_rate:
            findings.append(Finding("ok", "verdict", f"the data keeps up ({text})"))
        elif data_rate >= step_rate:
            findings.append(Finding("warning", "verdict", f"the data only just keeps up ({text})"))
        else:
            waits = 1 - data_rate / step_rate
            remedy = f"raise data_threads (now {run.data_threads}) if cores are free, or take a machine with more"
            findings.append(
                Finding("warning", "verdict", f"the device waits {waits:.0%} of the time ({text}): {remedy}")
            )
    else:
        findings.append(Finding("note", "verdict", "whether the data keeps up is not known"))
    return Section("speed", tuple(findings), facts)


def _data_rate(
    run: Experiment,
    streams: Mapping[str, Stream | None],
    seconds: float,
    pictures: int,
    findings: list[Finding],
    facts: dict[str, Any],
) -> float | None:
    """Steps/s of the pipeline; None if it cannot run."""
    if not seconds:
        findings.append(Finding("note", "data", "not measured (--seconds=0)"))
        return None
    opened = {name: stream for name, stream in streams.items() if stream is not None}
    if len(opened) < len(streams):
        closed = ", ".join(name for name in streams if name not in opened)
        findings.append(Finding("note", "data", f"not measured together: {closed} cannot be opened"))
    together = len(opened) == len(streams)
    one_by_one = opened if len(streams) > 1 else {}
    each = seconds / (len(one_by_one) * 2 if together and one_by_one else max(len(one_by_one), 1))
    rate = None
    try:
        if together:
            rate = batches_per_second(run, opened, seconds / 2 if one_by_one else seconds)
            facts["steps_per_second"] = rate
            text = f"{rate:.2f} steps/s = {rate * pictures:.1f} images/s with {run.data_threads} threads"
            findings.append(Finding("ok", "data", text))
        for name, stream in one_by_one.items():
            alone = batches_per_second(run, {name: stream}, each) * stream.batch_size
            facts.setdefault("images_per_second_alone", {})[name] = alone
            shared = f"{rate * stream.batch_size:.1f} images/s; " if rate else ""
            findings.append(Finding("ok", f"streams.{name}", f"{shared}on its own {alone:.1f} images/s"))
    except UserError as error:
        findings.append(Finding("note", "data", f"not measured: {error}"))
    return rate


def batches_per_second(run: Experiment, streams: Mapping[str, Stream], seconds: float) -> float:
    """Batches/s of the real pipeline over about `seconds`, the first batch left out."""
    replace = run.data.on_error == "replace"
    dataset = step_batches(streams, seed=run.seed, total_steps=2**30, replace=replace)
    batches = iterate(dataset, 0, run.data_threads)
    try:
        next(batches)
        begun = time.monotonic()
        done = 0
        while done == 0 or time.monotonic() - begun < seconds:
            next(batches)
            done += 1
        return done / (time.monotonic() - begun)
    finally:
        batches.close()  # type: ignore[attr-defined]  # Grain's iterators stop their threads so


def _step_rate(
    run: Experiment, pictures: int, step: StepReport | None, findings: list[Finding], facts: dict[str, Any]
) -> float | None:
    """Steps/s of the device: measured now, else from the run's own log, else None."""
    if step is not None and step.seconds is not None:
        facts["step_seconds"] = step.seconds
        text = f"{step.seconds:.3f} s = {pictures / step.seconds:.1f} images/s, measured here"
        findings.append(Finding("ok", "step", text))
        return 1 / step.seconds
    try:
        history = read_history(run.workdir)
    except UserError as error:
        findings.append(Finding("warning", "step", str(error)))
        history = []
    rates = [line["images_per_second"] for line in history if line.get("images_per_second", 0) > 0][-20:]
    if not rates:
        findings.append(Finding("note", "step", "time of a step unknown: --time_step measures it"))
        return None
    rate = statistics.median(rates)
    facts["images_per_second_logged"] = rate
    text = f"{rate:.1f} images/s as logged in {run.workdir}, waiting for data included; --time_step measures the step"
    findings.append(Finding("ok", "step", text))
    return rate / pictures
