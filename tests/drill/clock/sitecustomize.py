"""Lets the wall clock of a Python process jump: by as many seconds as the file DRILL_CLOCK says. Put on PYTHONPATH."""

import os
import time

_real, _real_ns = time.time, time.time_ns


def _jumped() -> float:
    try:
        with open(os.environ["DRILL_CLOCK"]) as file:
            return float(file.read())
    except (KeyError, OSError, ValueError):
        return 0.0


time.time = lambda: _real() + _jumped()
time.time_ns = lambda: _real_ns() + int(_jumped() * 1e9)
