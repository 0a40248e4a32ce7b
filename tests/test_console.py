"""What a log file gets to see."""

import io
import os
import sys
import time
import types
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from larvseg_jax import console


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """A clock that moves only when told."""
    now = [100.0]
    monkeypatch.setattr(console, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_stage_tells_its_name_and_seconds(capsys, clock):
    timings = {}
    for _ in range(2):
        with console.stage("compile", timings):
            clock[0] += 2.5
    assert capsys.readouterr().out.splitlines() == ["compile ...", "compile 2.5 s"] * 2
    assert timings == {"compile": 5.0}


def test_stage_that_fails_says_so(capsys, clock):
    def failing():
        with console.stage("data"):
            clock[0] += 1
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        failing()
    assert "data stopped after 1.0 s" in capsys.readouterr().out


SPEED = {"images_per_second": 40.0, "seconds_per_step": 0.4, "mfu": 0.4321, "data_wait": 0.015}


def test_every_logged_step_is_one_line(capsys, clock):
    metrics = {"loss": 2.0, "coco/L_seg": 1.5, "learning_rate": 0.1, **SPEED, "device_memory_gib": 61.5}
    with console.TrainProgress(total=100, start=50) as bar:
        for step in range(51, 101):
            clock[0] += 1
            bar.update(step, metrics if step in (70, 100) else {})
    lines = capsys.readouterr().out.splitlines()
    shown = "loss 2.000  coco/L_seg 1.500  images/s 40.0  MFU 43.2%  waiting for data 1.5%  device memory 61.50 GiB"
    assert lines[0] == "step 51/100  done after 1.0 s"
    assert lines[1:] == [f"step 70/100  {shown}  0:00:30 left", f"step 100/100  {shown}  0:00:00 left"]


def test_losses_that_wait_for_something_are_not_shown_as_0(capsys, clock):
    metrics = {"loss": 2.0, "tags/L_cls": 1.5, "tags/L_aux": 0.0, "ready/bank": 0.996}
    with console.TrainProgress(total=4) as bar:
        bar.update(1, metrics)
        bar.update(2, metrics | {"tags/L_aux": 0.25})
        bar.update(3, metrics | {"ready/bank": 1.0})
    lines = [line.partition("  loss 2.000  tags/L_cls 1.500  ")[2] for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "bank 99% ready: no tags/L_aux yet"
    assert lines[1].startswith("tags/L_aux 0.250  bank 99% ready")
    assert lines[2].startswith("tags/L_aux 0.000  ")
    assert "ready" not in lines[2]


def test_an_unknown_device_has_no_mfu():
    metrics = {name: value for name, value in SPEED.items() if name != "mfu"} | {"host_memory_gib": 1.25}
    assert console.speed_facts(metrics) == {
        "images/s": "40.0",
        "waiting for data": "1.5%",
        "host memory": "1.25 GiB",
    }
    assert console.speed_facts({"loss": 1.0}) == {}


def test_a_terminal_has_a_bar_below_the_lines(monkeypatch):
    screen = Console(file=io.StringIO(), force_terminal=True, width=70, highlight=False, soft_wrap=True)
    monkeypatch.setattr(console, "console", screen)
    monkeypatch.setattr(console, "time", time)
    with console.TrainProgress(total=4) as bar:
        bar.update(1, {"loss": 2.0, **SPEED})
        bar.update(2, {})
    text = screen.file.getvalue()
    assert text.count("step 1/4  loss 2.000  images/s 40.0  MFU 43.2%  waiting for data 1.5%") == 1
    assert text.count("step ") == 1
    assert "left" not in text
    assert "2/4" in text.rsplit("train", 1)[1]


def test_track_yields_all_and_ends_with_one_line(capsys):
    assert list(console.track("abc", 3, "evaluation")) == ["a", "b", "c"]
    assert capsys.readouterr().out.splitlines() == ["evaluation 3/3  0:00:00 left"]


def test_sizes_of_files_in_powers_of_1000_and_of_devices_in_gib():
    shown = {0: "0 bytes", 999: "999 bytes", 1500: "1.5 kB", 2_000_000: "2.0 MB", 3.21e9: "3.2 GB", 4.5e12: "4.5 TB"}
    assert {size: console.in_bytes(size) for size in shown} == shown
    assert console.in_gib(16 * 2**30) == "16.00 GiB"
    assert console.in_gib(1.25 * 2**30) == "1.25 GiB"


STRANGE = ("cat [/old]", "[bold]x[/bold] [link=y]", ":dog: [red", "a\\[b]", "x [/]")


@pytest.mark.parametrize("name", STRANGE)
def test_names_are_never_markup(capsys, name):
    """In lines, stages, progress and the cells, headings and titles of tables."""
    table = Table(name, title=name)
    table.add_row(name)
    with console.stage(name):
        console.console.print(name)
        console.console.print(table)
    list(console.track("a", 1, name))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{name} ..."
    assert lines[1] == name
    assert sum(name in line for line in lines[2:-2]) == 3
    assert lines[-2:] == [f"{name} 0.0 s", f"{name} 1/1  0:00:00 left"]


def test_names_are_never_markup_beside_a_bar(monkeypatch):
    screen = Console(file=io.StringIO(), force_terminal=True, width=70, highlight=False, markup=False, emoji=False)
    monkeypatch.setattr(console, "console", screen)
    monkeypatch.setattr(console, "time", time)
    list(console.track("a", 1, "streams.x [/old] :dog:: photos"))
    assert "streams.x [/old] :dog:: photos" in screen.file.getvalue()


def test_a_name_from_outside_is_one_line_that_can_be_encoded():
    shown = {
        "cat": "cat",
        "猫 é 😀": "猫 é 😀",
        "two\nlines\ttab\r": "two\\nlines\\ttab\\r",
        "\x1b[31mred\x07": "\\x1b[31mred\\x07",
        os.fsdecode(b"h\xfctte.jpg"): "h\\xfctte.jpg",
        "a\u2028b\ud800": "a\\u2028b\\ud800",
    }
    assert {name: console.printable(name) for name in shown} == shown
    for text in shown.values():
        text.encode("utf-8")
    assert console.printable(Path("x/y.jpg")) == "x/y.jpg"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_stream_that_lacks_characters_shows_their_numbers(monkeypatch, encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    console.print_any_text()
    table = Table("class 猫")
    table.add_row(os.fsdecode(b"h\xfctte"))
    console.console.print("猫 é")
    console.console.print(table)
    stream.flush()
    printed = stream.buffer.getvalue()
    assert printed.splitlines()[0] == "猫 é".encode(encoding, "backslashreplace")
    assert b"h\\udcfctte" in printed


def test_the_first_few_and_how_many_more():
    names = [f"n{i}" for i in range(3002)]
    assert console.first_few([], 2) == "none"
    assert console.first_few(names[:2], 2) == "n0, n1"
    assert console.first_few(iter(names), 2) == "n0, n1 and 3,000 more"
    assert console.first_few(names[:3], 2, separator="; ") == "n0; n1; and 1 more"
