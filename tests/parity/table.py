"""Errors against their tolerances, and the table of the worst ones."""

from __future__ import annotations

import dataclasses

import numpy as np

LOSS = 1e-4  # relative to the value
ARRAY = 2e-5  # relative to the largest entry
GRADIENT = 1e-4  # norm of the difference relative to the norm
NOTHING = 1e-6  # absolute, for what is zero in exact arithmetic
METRIC = 1e-6  # relative; the recorded ratios are float32


@dataclasses.dataclass
class _Row:
    error: float
    tolerance: float
    file: str

    @property
    def excess(self) -> bool:
        return not self.error <= self.tolerance  # NaN is an excess


class Report:
    """Collects errors; keeps the worst one of every (case, quantity) and all failures.

    A relative error is used throughout, except where what is recorded is zero: then the absolute one.
    """

    def __init__(self) -> None:
        self.failures: list[str] = []
        self._rows: dict[tuple[str, str], _Row] = {}
        self._case = self._file = ""

    def start(self, case: str, file: str) -> None:
        """What is added from here on belongs to this file."""
        self._case, self._file = case, file

    def fail(self, message: str) -> None:
        """Something that has no error and no tolerance."""
        self.failures.append(message)

    def loss(self, quantity: str, ours, recorded, tolerance: float = LOSS) -> None:
        """Each value relative to itself; NaN only where NaN was recorded."""
        ours, recorded = self._pair(quantity, ours, recorded)
        if ours is None:
            return
        scale = np.where(recorded == 0, 1.0, np.abs(recorded))
        both_nan = np.isnan(ours) & np.isnan(recorded)
        self._add(quantity, np.max(np.where(both_nan, 0.0, np.abs(ours - recorded) / scale), initial=0.0), tolerance)

    def array(self, quantity: str, ours, recorded, tolerance: float = ARRAY) -> None:
        """The largest difference relative to the largest entry recorded."""
        ours, recorded = self._pair(quantity, ours, recorded)
        if ours is None:
            return
        scale = np.max(np.abs(recorded), initial=0.0) or 1.0
        self._add(quantity, np.max(np.abs(ours - recorded), initial=0.0) / scale, tolerance)

    def gradient(self, quantity: str, ours, recorded) -> None:
        """The norm of the difference relative to the norm recorded."""
        ours, recorded = self._pair(quantity, ours, recorded)
        if ours is None:
            return
        norm = np.sqrt(np.sum(recorded**2))
        error = np.sqrt(np.sum((ours - recorded) ** 2))
        self._add(quantity, error / norm if norm else error, GRADIENT if norm else NOTHING)

    def exact(self, quantity: str, ours, recorded) -> None:
        """The number of entries that differ; none may."""
        ours, recorded = np.asarray(ours), np.asarray(recorded)
        same_shape = ours.shape == recorded.shape
        self._add(quantity, np.sum(ours != recorded) if same_shape else max(ours.size, recorded.size, 1), 0.0)

    def zero(self, quantity: str, ours, recorded) -> None:
        """What is zero in exact arithmetic: both are rounding, so the difference is absolute."""
        self._add(quantity, np.abs(np.asarray(ours) - recorded), NOTHING)

    def _pair(self, quantity: str, ours, recorded):
        ours, recorded = np.asarray(ours, np.float64), np.asarray(recorded, np.float64)
        if ours.shape != recorded.shape:
            self.fail(f"{self._file}: {quantity} has shape {ours.shape}, recorded is {recorded.shape}")
            return None, None
        return ours, recorded

    def _add(self, quantity: str, error, tolerance: float) -> None:
        row = _Row(float(error), tolerance, self._file)
        if row.excess:
            self.fail(f"{self._file}: {quantity} is off by {row.error:.3g}, allowed is {tolerance:.3g}")
        key = self._case, quantity
        worst = self._rows.get(key)
        if worst is None or row.excess or (not worst.excess and row.error > worst.error):
            self._rows[key] = row

    def text(self) -> str:
        """The table, with the file that each worst error comes from."""
        head = ("case", "quantity", "worst error", "tolerance", "", "file")
        lines = [head]
        for (case, quantity), row in self._rows.items():
            tolerance = f"{row.tolerance:.0e}" if row.tolerance else "exact"
            lines.append((case, quantity, f"{row.error:.2e}", tolerance, "EXCESS" if row.excess else "ok", row.file))
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)
