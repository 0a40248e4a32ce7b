"""Of several processes the one whose data comes too late is named."""

import jax.numpy as jnp
import pytest

from larvseg_jax.devices import processes
from larvseg_jax.report.metric_log import read_history
from larvseg_jax.training import history
from larvseg_jax.training.slow_host import SlowHost, slowest_process
from larvseg_jax.training.telemetry import Lap
from tests.training.test_recorder import recorder_of


@pytest.mark.parametrize(
    ("waits", "slowest"),
    [
        ({}, None),
        ({0: 9.0}, None),
        ({0: 0.01, 1: 0.8}, 1),
        ({0: 0.01, 1: 0.0, 2: 0.0, 3: 0.8}, 3),
        ({0: 0.8, 1: 0.0, 2: 0.7}, None),  # no one alone
        ({0: 0.5, 1: 0.8}, None),  # a disk that all share
        ({0: 0.0, 1: 0.04}, None),  # less than a twentieth of the step
    ],
)
def test_one_that_waits_much_longer_than_the_others_stands_out(waits, slowest):
    assert slowest_process(waits, 1.0) == slowest


def test_it_is_named_once_and_every_logged_step_has_its_number(tmp_path, monkeypatch, capsys):
    told, waits = [], {0: ("near", 0.01), 1: ("far", 0.8)}
    monkeypatch.setattr(processes, "tell_data_wait", told.append)
    monkeypatch.setattr(processes, "data_waits", lambda: waits)
    slow_host = SlowHost(tmp_path)
    for step in (2, 4):
        assert slow_host.values(step, Lap(2, 4.0, 0.5)) == {"longest_data_wait": 0.4, "slowest_process": 1}
    assert told == [0.25, 0.25]
    line = "process 1 (far) waits 0.8 s a step for its data, the others 0.01 s: all go at its pace"
    assert capsys.readouterr().out.count(line) == 1
    (event,) = history.read(tmp_path)
    assert (event["event"], event["step"], event["details"]) == ("slow host", 2, [line])
    waits[1] = ("far", 0.01)
    assert slow_host.values(6, Lap(2, 4.0, 0.5)) == {}


def test_the_log_has_it(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "data_waits", lambda: {0: ("near", 0.0), 5: ("far", 1e6)})
    with recorder_of(tmp_path) as recorder:
        recorder.begun(1, {"loss": jnp.float32(1)})
        recorder.catch_up()
    (line,) = read_history(tmp_path)
    assert line["slowest_process"] == 5
    assert line["longest_data_wait"] > 1


def test_one_process_says_nothing_of_it(tmp_path):
    with recorder_of(tmp_path) as recorder:
        recorder.begun(1, {"loss": jnp.float32(1)})
        recorder.catch_up()
    (line,) = read_history(tmp_path)
    assert "slowest_process" not in line
