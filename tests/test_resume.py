"""A run that is killed and started again ends bit-identical to one that was not."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from larvseg_jax.assemble import state_layout
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.report.metric_log import read_history
from larvseg_jax.weights.checkpoint import Checkpoints
from tests import tiny

REPOSITORY = Path(__file__).parent.parent
STEPS = 40


def start(workdir: Path, data: Path) -> subprocess.Popen:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("XLA_FLAGS", "JAX_NUMPY"))}
    arguments = [f"--config.workdir={workdir}", f"--config.data_root={data}", f"--config.total_steps={STEPS}"]
    return subprocess.Popen(
        [sys.executable, "train.py", "--config=tests/tiny.py", *arguments],
        cwd=REPOSITORY,
        env=environment | {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(workdir.parent / "xla")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors


def interrupt(process: subprocess.Popen, workdir: Path, step: int, how: signal.Signals) -> int:
    """Sends a signal as soon as the log shows `step`; returns the exit code."""
    deadline = time.monotonic() + 240
    while not (history := read_history(workdir)) or history[-1]["step"] < step:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(how)
    process.communicate(timeout=60)
    return process.returncode


def final_state(workdir: Path):
    config = tiny.get_config()
    config.total_steps = STEPS
    with Checkpoints(workdir) as checkpoints:
        layout = state_layout(from_config(config), make_mesh(1, 1, jax.devices()[:1]))
        assert checkpoints.steps()[-1] == STEPS
        return jax.device_get(checkpoints.restore(STEPS, layout))


@pytest.mark.slow
def test_killed_and_restarted_run_is_bit_identical(tmp_path):
    data = tiny.write_data(tmp_path).parent
    finish(start(tmp_path / "whole", data))
    killed = tmp_path / "killed"
    # Once right after a save has begun (step 9), once between two saves, once by a polite SIGTERM.
    assert interrupt(start(killed, data), killed, 9, signal.SIGKILL) == -signal.SIGKILL
    assert interrupt(start(killed, data), killed, 20, signal.SIGKILL) == -signal.SIGKILL
    assert interrupt(start(killed, data), killed, 29, signal.SIGTERM) == 128 + signal.SIGTERM
    finish(start(killed, data))

    whole, resumed = final_state(tmp_path / "whole"), final_state(killed)
    assert whole.memory.wraps.max() >= 1
    for (path, one), other in zip(jax.tree_util.tree_leaves_with_path(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(one, other, err_msg=jax.tree_util.keystr(path))
    logs = [read_history(workdir) for workdir in (tmp_path / "whole", killed)]
    steps = [[(line["step"], line["kind"]) for line in log] for log in logs]
    assert steps[0] == steps[1]
    losses = [[line["loss"] for line in log if line["kind"] == "train"] for log in logs]
    assert losses[0] == losses[1]
    assert (killed / "report.html").stat().st_size > 10_000
    assert json.loads((killed / "config.json").read_text())["total_steps"] == STEPS
