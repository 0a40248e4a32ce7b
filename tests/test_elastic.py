"""A run goes on with fewer devices, or more, than it was stopped on: state, bank and class table are dealt anew."""

import contextlib
import signal

import jax
import numpy as np
import pytest

from larvseg_jax import assemble, train
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.devices.processes import Stopping
from larvseg_jax.errors import Stopped
from larvseg_jax.report.metric_log import read_history
from tests import tiny

STEPS = 7


class StopAt(Stopping):
    """Asked to stop at a step, as by SIGTERM."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def __call__(self, step):
        if step == self.step:
            self.signal = signal.SIGTERM
        return super().__call__(step)


@pytest.fixture
def run_on(tmp_path, monkeypatch):
    """Trains on some of this process's devices, as if there were no others, until a step; the state it returns."""
    data = tiny.write_data(tmp_path / "data").parent

    def run_on(workdir, shape, until=None, shard_backbone=False):
        config = tiny.get_config()
        config.data_root, config.workdir, config.total_steps = str(data), str(workdir), STEPS
        config.evals, config.gallery, config.checkpoint.every = {}, 0, 100
        config.mesh.update(data=shape[0], model=shape[1], shard_backbone=shard_backbone)
        mesh = make_mesh(*shape, jax.devices()[: shape[0] * shape[1]])
        monkeypatch.setattr(assemble, "mesh_of", lambda run: mesh)
        monkeypatch.setattr(train, "stop_requested", lambda: contextlib.nullcontext(StopAt(until)))
        return train.train(from_config(config))

    return run_on


def losses_of(workdir):
    lines = [line for line in read_history(workdir) if line["kind"] == "train"]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    return [{name: value for name, value in line.items() if name == "loss" or "/L_" in name} for line in lines]


@pytest.mark.slow
def test_a_run_goes_on_with_ever_fewer_devices_as_if_nothing_had_happened(tmp_path, run_on, capsys):
    for until, shape, shard in ((2, (4, 2), True), (5, (1, 2), False)):
        with pytest.raises(Stopped, match=f"goes on from step {until}, which is saved"):
            run_on(tmp_path / "shrinking", shape, until, shard)
    last = run_on(tmp_path / "shrinking", (1, 1))
    changes = capsys.readouterr().out
    assert "changed: mesh.data: 1, was 4" in changes
    assert "changed: mesh.model: 1, was 2" in changes
    whole = run_on(tmp_path / "whole", (1, 1))

    losses = losses_of(tmp_path / "shrinking")
    for step, (expected, found) in enumerate(zip(losses_of(tmp_path / "whole"), losses, strict=True), start=1):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=2e-4, atol=1e-6, err_msg=f"{name}, step {step}")
    assert whole.memory.wraps.max() >= 1  # the banks were warm: the attention was in these losses
    np.testing.assert_array_equal(last.memory.cursor, whole.memory.cursor)
    np.testing.assert_array_equal(last.memory.wraps, whole.memory.wraps)
    np.testing.assert_allclose(last.memory.slots, whole.memory.slots, atol=2e-4)
    table = [state.params["head"]["class_embeddings"] for state in (last, whole)]
    np.testing.assert_allclose(*table, atol=1e-4)
