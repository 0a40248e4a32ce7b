"""A process that is gone, or has ended with an error, ends the others, which say in one line who it was."""

import contextlib
import itertools
import json
import os
import queue
import shutil
import signal
import socket
import time

import pytest

from data_pipelines.streams import step_batches
from larvseg_jax import assemble
from larvseg_jax.config import from_config
from larvseg_jax.devices import watch
from larvseg_jax.devices.watch import GONE, Watch
from larvseg_jax.report.metric_log import read_history
from larvseg_jax.weights.places import steps_named
from tests import tiny
from tests.devices.several import exit_codes, printed, start

SECONDS = 60.0  # for what takes a moment


@pytest.fixture
def ends(monkeypatch):
    """The lines of all watches of this process that end it."""
    lines = queue.Queue()
    monkeypatch.setattr(watch, "end_process", lines.put)
    return lines


@pytest.fixture
def watching(ends):
    """Makes watches, which are closed before they could really end this process."""
    with contextlib.ExitStack() as made:

        def make(process, count, timeout=SECONDS):
            return made.enter_context(contextlib.closing(Watch(process, count, timeout)))

        yield make


@pytest.fixture
def first(watching):
    """(the watch of the first of three processes, a function that connects to it as another one)."""
    mine = watching(0, 3)
    said = mine.listen()
    with contextlib.ExitStack() as opened:

        def connect(process, *lines, token=None):
            connection = opened.enter_context(socket.create_connection(("localhost", said["port"]), SECONDS))
            for line in ({"token": token or said["token"], "process": process, "host": f"host{process}"}, *lines):
                connection.sendall(json.dumps(line).encode() + b"\n")
            return connection

        connect.said = said
        yield mine, connect


def join(other, server):
    other.join("localhost", {"port": server.getsockname()[1], "token": "x", "host": "host0"})


def until(condition):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_closed_connection_is_a_death_and_all_hear_of_it(first, ends, watching):
    _, connect = first
    third = watching(2, 3)
    third.join("localhost", connect.said)
    connect(1).close()
    for _ in range(2):
        assert ends.get(timeout=SECONDS).startswith("process 1 (host1) of this run is gone (its connection has closed)")


def test_the_death_of_the_first_process_is_seen_too(ends, watching):
    with socket.create_server(("localhost", 0)) as server:
        join(watching(1, 2), server)
        server.accept()[0].close()
        assert ends.get(timeout=SECONDS).startswith("process 0 (host0) of this run is gone (its connection has closed)")


def test_silence_is_a_death(ends, watching):
    with socket.create_server(("localhost", 0)) as server:
        join(watching(1, 2, 0.2), server)
        assert ends.get(timeout=SECONDS).startswith("process 0 (host0) of this run is gone (silent for 0.2 s)")


def test_two_that_have_nothing_to_say_are_not_silent(ends, watching):
    mine, other = watching(0, 2, 1.0), watching(1, 2, 1.0)
    other.join("localhost", mine.listen())
    with pytest.raises(queue.Empty):
        ends.get(timeout=3)


def test_one_that_ends_by_itself_is_no_death(first, ends):
    _, connect = first
    connect(1, {"left": 1, "host": "host1", "error": ""}).close()
    connect(2).close()
    assert ends.get(timeout=SECONDS).startswith("process 2 (host2)")
    assert ends.empty()


def test_all_hear_that_one_has_ended_by_itself(first, ends):
    _, connect = first
    with connect(2).makefile() as lines:
        connect(1, {"left": 1, "host": "host1", "error": ""})
        connect(0, {"wait": 0.0}).close()  # so that something else comes afterwards: a death
        heard = [json.loads(line) for line in itertools.takewhile(lambda line: "end" not in json.loads(line), lines)]
    assert {"left": 1, "host": "host1", "error": ""} in heard


def test_an_error_of_one_ends_the_others_a_moment_later(first, ends, watching, monkeypatch):
    monkeypatch.setattr(watch, "GRACE", 0.1)
    _, connect = first
    third = watching(2, 3)
    third.join("localhost", connect.said)
    connect(1, {"left": 1, "host": "host1", "error": "photo.jpg cannot be read"})
    said = "process 1 (host1) of this run has ended with an error: photo.jpg cannot be read"
    for _ in range(2):
        assert ends.get(timeout=SECONDS).startswith(said)


def test_one_with_an_error_of_its_own_says_only_that_and_waits_for_no_one(first, ends, monkeypatch):
    """JAX's own end would wait for the others, which have been ended by this one's error."""
    codes = []
    monkeypatch.setattr(os, "_exit", codes.append)
    mine, connect = first
    others = [connect(process) for process in (1, 2)]
    until(lambda: len(mine.hosts) == 3)
    mine.before_shutdown()
    assert codes == []
    mine.leave(2, "the learning rate is wrong")
    for other in others:
        with other.makefile() as lines:
            assert json.loads(next(line for line in lines if "left" in line))["error"] == "the learning rate is wrong"
        other.close()
    mine.before_shutdown()
    assert codes == [2]
    assert ends.empty()


def test_where_all_have_the_same_error_they_end_as_jax_likes_it(first, monkeypatch):
    codes = []
    monkeypatch.setattr(os, "_exit", codes.append)
    mine, connect = first
    for process in (1, 2):
        connect(process, {"left": process, "host": "", "error": "the same"})
    mine.leave(2, "the same")
    mine.before_shutdown()
    assert codes == []


def test_strangers_are_not_heard(first, ends):
    mine, connect = first
    stranger = connect(1, {"wait": 9.0}, token="guessed")
    assert stranger.recv(1) == b""
    connect(2, {"wait": 0.5})
    until(lambda: 2 in mine.waits)
    assert mine.waits == {2: 0.5}
    assert ends.empty()


@pytest.mark.slow
def test_a_killed_process_ends_the_other_in_the_middle_of_a_training(tmp_path):
    dead = 0  # at whose death JAX's own service ends, too; of the other's the watches above hear
    workdir, data = tmp_path / "run", tiny.write_data(tmp_path / "data").parent
    endless = f"--config.data_root={data}", "--config.total_steps=100000", "--config.evals.val.every=100000"
    processes = start(workdir, *endless, devices=(1, 1))
    try:
        until_step(workdir, 3, processes)
        processes[dead].send_signal(signal.SIGKILL)
        codes = exit_codes(processes)
    finally:
        for process in processes:
            process.kill()
    assert codes[dead] == -signal.SIGKILL
    text = printed(workdir, 1 - dead).read_text()
    assert codes[1 - dead] == GONE, text[-3000:]
    said = f"error: process {dead} ({socket.gethostname()}) of this run is gone (its connection has closed): "
    assert text.splitlines()[-1].startswith(said)


def until_step(workdir, step, processes):
    deadline = time.monotonic() + 400
    while not (history := read_history(workdir)) or history[-1]["step"] < step:
        assert [process.poll() for process in processes] == [None, None], printed(workdir, 1).read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_a_photo_that_only_one_process_cannot_read_costs_no_step(tmp_path):
    workdir, folders = tmp_path / "run", [many_tagged(tiny.write_data(tmp_path / name)) for name in "ab"]
    step, photo = seen_first_late(folders[0].parent)
    picture = folders[1] / "images" / f"{photo}.png"
    picture.write_bytes(picture.read_bytes()[:60])
    own = [[f"--config.data_root={folder.parent}"] for folder in folders]
    codes = exit_codes(start(workdir, "--config.checkpoint.every=100", devices=(1, 1), own=own))
    texts = [printed(workdir, process).read_text() for process in range(2)]
    assert codes == [128 + signal.SIGTERM, 2], "\n".join(text[-3000:] for text in texts)
    saved = max(steps_named(workdir))
    assert step - 4 < saved <= step
    goes_on = f"the same command goes on from step {saved}, which is saved"
    assert goes_on in texts[0].splitlines()[-1]
    last = texts[1].splitlines()[-1]
    for said in (goes_on, f"{photo}.png", "on_error=replace"):
        assert said in last


def many_tagged(folder):
    """Eight times as many tagged photos: a stream's batch no longer shows all of them."""
    splits = json.loads((folder / "splits.json").read_text())
    for stem in splits["tagged"][:]:
        for copy in (f"{stem}_{i}" for i in range(7)):
            shutil.copy(folder / "images" / f"{stem}.png", folder / "images" / f"{copy}.png")
            splits["tagged"].append(copy)
            splits["image_labels"][copy] = splits["image_labels"][stem]
    (folder / "splits.json").write_text(json.dumps(splits))
    return folder


def seen_first_late(data_root):
    """A step, and a tagged photo that process 1 of two sees in its batch and in none before."""
    config = tiny.get_config()
    config.data_root = str(data_root)
    run = from_config(config)
    steps = step_batches(assemble.open_streams(run), seed=run.seed, total_steps=8, process_index=1, process_count=2)
    seen = [steps[step]["tags"]["id"].tolist() for step in range(8)]
    step = max(step for step in range(8) if set(seen[step]) - {photo for ids in seen[:step] for photo in ids})
    return step, (set(seen[step]) - {photo for ids in seen[:step] for photo in ids}).pop()
