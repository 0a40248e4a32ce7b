"""Several processes of a few devices each are one run: same numbers, one log, checkpoints that any can read."""

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from larvseg_jax.assemble import (
    batch_placer,
    data_settings,
    fresh_state,
    host_batches,
    lower_step,
    open_streams,
    seeded,
    state_layout,
)
from larvseg_jax.config import from_config
from larvseg_jax.devices import processes
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.errors import Stopped, UserError
from larvseg_jax.report.metric_log import read_history
from larvseg_jax.training.profiling import Profile
from larvseg_jax.training.state import TrainState
from larvseg_jax.training.telemetry import Clock
from larvseg_jax.weights import checkpoint
from larvseg_jax.weights.checkpoint import Checkpoints
from larvseg_jax.weights.record import Record
from tests import tiny
from tests.devices.several import assert_all_finish, exit_codes, printed, printed_text, start, touched

STEPS = 7


def one_device():
    return make_mesh(1, 1, jax.devices()[:1])


def step_of(config):
    """A run's step, compiled for one process with one device: this one."""
    run, mesh = from_config(config), one_device()
    lowered = lower_step(run, mesh, state_layout(run, mesh))
    return seeded(run, mesh, lowered.compile())


def on_one_device(config, steps, state=None, step=None):
    """(metrics of each step, state after it) of a run of one process with one device; from the beginning or a state."""
    run, mesh = from_config(config), one_device()
    state, step = state or fresh_state(run, mesh), step or step_of(config)
    batches, place = host_batches(run, open_streams(run), int(state.step)), batch_placer(run, mesh)
    losses, states = [], []
    for _ in range(steps):
        state, metrics = step(state, place(next(batches)))
        losses.append(jax.device_get(metrics))
        states.append(jax.tree.map(jnp.copy, state))  # the step takes its memory
    return losses, states


def assert_same_losses(history, expected, first=0):
    lines = {line["step"]: line for line in history if line["kind"] == "train"}
    for step, metrics in enumerate(expected[first:], start=first + 1):
        for name, value in metrics.items():
            np.testing.assert_allclose(lines[step][name], value, rtol=2e-4, atol=1e-6, err_msg=f"{name}, step {step}")


def config_for(data_root, total_steps):
    config = tiny.get_config()
    config.data_root, config.total_steps = str(data_root), total_steps
    config.evals.val.every = 10**6
    return config


def options(config):
    kept = {"data_root": config.data_root, "total_steps": config.total_steps, "evals.val.every": config.evals.val.every}
    return [f"--config.{name}={value}" for name, value in kept.items()]


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    return tiny.write_data(tmp_path_factory.mktemp("data")).parent


@pytest.fixture(scope="module")
def on_one(data_root):
    config = config_for(data_root, STEPS)
    step = step_of(config)
    losses, (*_, state) = on_one_device(config, STEPS, step=step)
    return losses, jax.device_get(state), step


@pytest.mark.slow
@pytest.mark.parametrize("devices", [(2, 2)], ids=str)  # four processes take too long on two cores
def test_several_processes_train_like_one_and_one_goes_on_from_them(tmp_path, data_root, on_one, devices):
    config, workdir, (losses, ours, one_step) = config_for(data_root, STEPS), tmp_path / "run", on_one
    mesh = "--config.mesh.model=2", "--config.mesh.shard_backbone=True", "--config.checkpoint.every=6"
    assert_all_finish(workdir, start(workdir, *options(config), *mesh, devices=devices))

    history = read_history(workdir)
    assert [line["step"] for line in history if line["kind"] == "train"] == list(range(1, STEPS + 1))
    assert [line["step"] for line in history if line["kind"] == "eval"] == [STEPS]
    assert_same_losses(history, losses)
    layout = state_layout(from_config(config), make_mesh(8, 1))
    with Checkpoints(workdir, read_only=True) as checkpoints:
        theirs = jax.device_get(checkpoints.restore(STEPS, layout))
        # As if they had been killed before the last step, and one process had gone on.
        before = checkpoints.restore(STEPS - 1, state_layout(from_config(config), one_device()))
    last, _ = on_one_device(config, 1, before, one_step)
    assert_same_losses(history, [*losses[:-1], *last], first=STEPS - 1)
    assert ours.memory.wraps.max() >= 1
    np.testing.assert_array_equal(theirs.memory.cursor, ours.memory.cursor)
    np.testing.assert_array_equal(theirs.memory.wraps, ours.memory.wraps)
    np.testing.assert_allclose(theirs.memory.slots, ours.memory.slots, atol=2e-4)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(theirs.params), jax.tree.leaves(ours.params), strict=True
    ):
        # Adam moves an entry by the rate whatever the size of its gradient, so one near zero may go either way; that of
        # a key's bias is nothing but rounding.
        if jax.tree_util.keystr(path).endswith("['key']['bias']"):
            continue
        np.testing.assert_allclose(a, b, atol=1e-4, err_msg=jax.tree_util.keystr(path))
    assert_only_the_first_writes_and_tells(workdir, len(devices))
    # Else the first one would not compile at the next start, and give up waiting for the others, which have to.
    assert not Path(f"{workdir}_programs").exists()


def assert_only_the_first_writes_and_tells(workdir, processes):
    assert (workdir / "report.html").stat().st_size > 10_000
    assert json.loads((workdir / "config.json").read_text())["total_steps"] == STEPS
    assert len(list((workdir / "tensorboard").glob("events*"))) == 1
    first = printed(workdir, 0).read_text()
    assert "state: " in first
    assert "report:" in first
    written = {path.relative_to(workdir) for path in touched(workdir, 0)}
    assert {"config.json", "metrics.jsonl", "tensorboard", "report.html"} <= set(map(str, written))
    assert {"record.orbax-checkpoint-tmp", "digest.orbax-checkpoint-tmp"} <= {path.name for path in written}
    for process in range(1, processes):
        assert printed_text(workdir, process) == ""
        # Its own arrays (and their list, process_1), in folders that the first one makes.
        assert {path.name for path in touched(workdir, process)} == {"checkpoints", f"process_{process}"}


@pytest.mark.slow
def test_two_processes_go_on_from_one_and_stop_together(tmp_path, data_root):
    """A checkpoint of one process (and a damaged one); SIGTERM to the second of two processes stops the first, too."""
    config, workdir = config_for(data_root, 100_000), tmp_path / "run"
    run = from_config(config)
    losses, (_, _, early, *_) = on_one_device(config, 6)
    record = Record.of(run.settings, run.vocabulary.classes, data_settings(run, open_streams(run)), early)
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(record, early, 3, None)
    shutil.copytree(workdir / "checkpoints" / "3", workdir / "checkpoints" / "4")
    shutil.rmtree(workdir / "checkpoints" / "4" / "record")
    processes = start(workdir, *options(config), "--config.checkpoint.every=100000", devices=(1, 1))
    try:
        deadline = time.monotonic() + 400
        while not (history := read_history(workdir)) or history[-1]["step"] < 6:
            assert [process.poll() for process in processes] == [None, None], printed(workdir, 1).read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        processes[1].send_signal(signal.SIGTERM)
        assert exit_codes(processes) == [128 + signal.SIGTERM] * 2, printed(workdir, 1).read_text()[-3000:]
    finally:
        for process in processes:
            process.kill()
            process.wait()

    text = printed(workdir, 0).read_text()
    assert "resumed at step 3" in text
    assert [path.name[:2] for path in (workdir / "damaged").iterdir()] == ["4_"]
    assert not [path for path in touched(workdir, 1) if "damaged" in path.parts]
    stopped = int(re.search(r"goes on from step (\d+), which is saved", text)[1])
    history = read_history(workdir)
    assert [line["step"] for line in history] == list(range(4, stopped + 1))
    assert_same_losses(history, losses, first=3)
    with Checkpoints(workdir, read_only=True) as checkpoints:
        assert checkpoints.steps() == [3, stopped]
        layout = state_layout(run, make_mesh(2, 4))
        assert int(checkpoints.restore(stopped, layout).step) == stopped
        # Bit for bit what was saved by the one process.
        again = checkpoints.restore(3, layout)
    for one, two in zip(jax.tree.leaves(early), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "model", "message"),
    [
        ((4, 4), 8, "mesh.model=8 reaches over several processes of 4 devices: use a divisor of 4"),
        ((3, 1), 2, "the 2 processes have 3, 1 devices: give each of them 1"),
    ],
    ids=str,
)
def test_a_mesh_that_the_processes_cannot_share_is_refused_by_all(tmp_path, data_root, devices, model, message):
    workdir = tmp_path / "run"
    given = f"--config.data_root={data_root}", f"--config.mesh.model={model}"
    assert exit_codes(start(workdir, *given, devices=devices)) == [2, 2]
    for process in range(2):
        assert f"error: {message}" in printed(workdir, process).read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", 2, 0), "go with --coordinator"),
        (("auto", None, 1), "go with --coordinator"),
        (("localhost:1", None, 0), "needs all three"),
        (("localhost:1", 2, 2), "0 <= process_id < num_processes"),
    ],
)
def test_incomplete_flags_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        processes.start(*arguments, peer_timeout=30)


def test_another_process_waits_until_the_first_has_set_damage_aside(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoints"
    state = TrainState(jnp.zeros((), jnp.int32), {"x": jnp.arange(3.0)}, (), ())
    record = Record.of({"method": {}}, ("a",), {}, state)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(record, state, 3, None)
    (folder / "4").mkdir()
    monkeypatch.setattr(checkpoint, "is_first_process", lambda: False)
    # What the first one does in the meantime.
    monkeypatch.setattr(checkpoint, "wait_for_all", lambda name: (folder / "4").rename(tmp_path / "aside"))
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [3, 4]
        restored, _ = checkpoints.restore_latest(state, record)
        assert checkpoints.steps() == [3]
    np.testing.assert_array_equal(restored.params["x"], [0, 1, 2])
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints", "aside"}


def test_another_process_traces_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with Clock(0) as clock, Profile(tmp_path, (0, 2)) as profile:
        profile.begin(0, {}, clock)
    assert not list(tmp_path.iterdir())


def test_an_error_of_a_transfer_waits_for_the_watch_to_say_who_is_gone(monkeypatch):
    class Heard:
        timeout = 30.0

        def leave(self, *said):
            events.append(said)

    events = []
    monkeypatch.setattr(processes, "_watch", Heard())
    monkeypatch.setattr(time, "sleep", events.append)
    processes.leave(jax.errors.JaxRuntimeError("Connection closed by peer"))
    processes.leave(UserError("seed is wrong"))
    processes.leave(Stopped("stopped", 143))
    processes.leave(None)
    assert events == [31.0, (1, "JaxRuntimeError: Connection closed by peer"), (2, "seed is wrong"), (0,), (0,)]


def test_one_process_joins_nobody():
    processes.start("", None, None, 30)
    assert processes.is_first_process()
    with processes.stop_requested() as stopping:
        assert not stopping(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopping(2)
