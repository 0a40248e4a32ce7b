"""What is seen of a training while it runs: clock, profile, progress bar and log, as one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import jax

from larvseg_jax.console import TrainProgress, console
from larvseg_jax.methods.method import Metrics
from larvseg_jax.report.metric_log import MetricLog
from larvseg_jax.training.finite import check_losses
from larvseg_jax.training.history import note
from larvseg_jax.training.profiling import Profile
from larvseg_jax.training.slow_host import SlowHost
from larvseg_jax.training.telemetry import Clock, Meter

T = TypeVar("T")

_BEGINNING = 0.1  # of the steps, in which a method's metrics are not expected to be right


class Recorder:
    """Watches the steps of a training. Metrics are read one step late, so that the device never waits for the log.

    with recorder:
        with recorder.step(step):
            state, metrics = train_step(state, recorder.next(batches))
            recorder.begun(step + 1, metrics)     # reads and logs those of `step`
        recorder.catch_up()                       # reads those of step + 1, too
    """

    def __init__(
        self,
        workdir: Path,
        start: int,
        total: int,
        every: int,
        rate: Callable[[int], Any],
        meter: Meter,
        profiled: tuple[int, int] | None = None,
        replaced: Callable[[int], Mapping[str, float]] = lambda step: {},
        symptoms: Callable[[Mapping[str, float]], list[str]] = lambda metrics: [],
    ) -> None:
        """`rate`, `meter`: what is logged besides the metrics; `replaced`: photos, since it was asked before.

        `symptoms`: what a method finds wrong in its metrics (`methods.method.Watched`): each line is printed once.
        """
        self._replaced, self._symptoms, self._said, self._workdir = replaced, symptoms, set[str](), workdir
        self._total, self._every, self._rate, self._meter = total, every, rate, meter
        self._log, self._clock = MetricLog(workdir, start), Clock(start)
        self._progress = TrainProgress(total, start)
        self._profile = Profile(workdir / "tensorboard", profiled)
        self._slow_host = SlowHost(workdir)
        self._pending: tuple[int, Metrics] | None = None
        self._last: Metrics = {}
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Recorder:
        for part in (self._log, self._progress, self._clock, self._profile):
            self._open.enter_context(part)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

    @contextlib.contextmanager
    def step(self, step: int) -> Iterator[None]:
        """The step that follows `step` steps; a profile begins and ends here."""
        self._profile.end(step, self._last, self._clock)
        self._profile.begin(step, self._last, self._clock)
        with jax.profiler.StepTraceAnnotation("train_step", step_num=step):
            yield

    def next(self, batches: Iterator[T]) -> T:
        """The next batch; the time without one is noted."""
        return self._clock.next(batches)

    def begun(self, step: int, metrics: Metrics) -> None:
        """Step number `step` is on its way to the device and will have these metrics; reads those of the one before."""
        self._clock.begun(metrics)
        if jax.process_count() > 1 and self._pending is not None:
            jax.block_until_ready(self._pending[1])  # so that no process is more than two steps ahead of another
        self._read(check=False)
        self._pending, self._last = (step, metrics), metrics

    def catch_up(self) -> None:
        """Waits for the last step begun and reads its metrics; Diverged if they are not finite."""
        self._read(check=True)

    def _read(self, *, check: bool) -> None:
        """Shows and logs the pending metrics, if they are due; only then, or to `check` them, they are fetched."""
        if self._pending is None:
            return
        (step, metrics), self._pending = self._pending, None
        due = step % self._every == 0 or step == self._total
        values = {}
        if due or check:
            values = {name: float(value) for name, value in jax.device_get(metrics).items()}
            check_losses(values, step)
            if replaced := self._replaced(step):  # before every checkpoint, so that a restart forgets none of them
                self._log.write(step, "data", replaced)
        if due:
            with jax.transfer_guard("allow"):  # the schedule is a function on the device, whatever it is given
                values["learning_rate"] = float(self._rate(step - 1))
            lap = self._clock.read(step)
            self._warn(step, values)
            values |= self._meter.values(lap) | self._slow_host.values(step, lap)
            self._log.write(step, "train", values)
        self._progress.update(step, values if due else {})

    def _warn(self, step: int, values: Mapping[str, float]) -> None:
        """Says what is wrong by the metrics of a step, and was not said before."""
        found = [line for line in self._symptoms(values) if line not in self._said]
        if step < _BEGINNING * self._total or not found:
            return
        self._said.update(found)
        for line in found:
            console.print(f"warning: step {step}: {line}")
        note(self._workdir, "warning", step, found)

    def scored(self, step: int, name: str, scores: Mapping[str, float]) -> None:
        """Logs the evaluation `name` of a step."""
        self._log.write(step, "eval", scores, name)

    def paused(self) -> contextlib.AbstractContextManager[None]:
        """Time spent inside (evaluation, checkpoints) does not count as training."""
        return self._clock.paused()
