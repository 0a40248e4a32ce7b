"""Clock, MFU, memory and profile of a run."""

import concurrent.futures
import gzip
import json
import re
import resource
import threading
import types

import jax
import jax.numpy as jnp
import pytest

from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.errors import UserError
from larvseg_jax.report.metric_log import read_history
from larvseg_jax.train import train
from larvseg_jax.training import telemetry
from larvseg_jax.training.profiling import Profile, parse_window
from larvseg_jax.training.telemetry import Clock, Lap, Meter, peak_memory
from tests import tiny
from tests.test_cli import assert_refused, command


@pytest.fixture
def now(monkeypatch):
    """A clock that moves only when told."""
    now = [100.0]
    monkeypatch.setattr(telemetry, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    return now


@pytest.fixture
def endings(monkeypatch):
    """The ends of steps that a clock waits for, in order."""
    endings = []

    class Thread(concurrent.futures.ThreadPoolExecutor):
        def submit(self, *task):
            endings.append(super().submit(*task))
            return endings[-1]

    futures = types.SimpleNamespace(ThreadPoolExecutor=Thread, Future=concurrent.futures.Future)
    monkeypatch.setattr(telemetry, "concurrent", types.SimpleNamespace(futures=futures))
    return endings


class Step:
    """What a step returns: ready when `done` is set."""

    def __init__(self):
        self.done = threading.Event()

    def block_until_ready(self):
        assert self.done.wait(30)
        return self


def batches(now, *parts):
    """Every part is what happens while a batch is awaited: seconds that pass, or things to do."""
    for part in parts:
        for happening in part:
            if callable(happening):
                happening()
            else:
                now[0] += happening
        yield "batch"


def test_waiting_for_data_counts_from_the_moment_the_device_has_nothing_to_do(now, endings):
    with Clock(10) as clock:
        one, two, three = Step(), Step(), Step()

        def finish(step):
            step.done.set()
            endings[-1].result(30)  # the thread has noted when

        awaited = batches(now, [3.0], [2.0], [2.0], [1.0, lambda: finish(two), 4.0], [5.0])
        assert clock.next(awaited) == "batch"  # 3 s: nothing runs yet
        clock.begun(one)
        now[0] += 0.5
        assert clock.next(awaited) == "batch"  # 0 s: the device is busy throughout
        finish(one)
        clock.begun(two)
        assert clock.next(awaited) == "batch"  # 0 s: busy with the second step
        assert clock.next(awaited) == "batch"  # 4 s: it ended after the first second
        clock.begun(three)
        finish(three)
        now[0] += 0.5
        assert clock.next(awaited) == "batch"  # 5 s: it had ended before the batch was asked for
        four = Step()
        clock.begun(four)
        now[0] += 2.0
        finish(four)
        now[0] += 100.0
        # A lap goes from end to end of a step; a wait belongs to the step that it is before.
        assert clock.read(13) == Lap(steps=3, seconds=12.5, starved=7.0)
        assert clock.read(14) == Lap(steps=1, seconds=7.5, starved=5.0)


def test_pauses_do_not_count(now, endings):
    with Clock(0) as clock:

        def run():
            step = Step()
            clock.begun(step)
            now[0] += 2.0
            step.done.set()
            endings[-1].result(30)

        now[0] += 1.0
        with clock.paused():
            now[0] += 50.0
        run()
        with clock.paused():  # after the end of the lap that is read next
            now[0] += 30.0
        run()
        assert clock.read(1) == Lap(1, 3.0, 0.0)
        assert clock.read(2) == Lap(1, 2.0, 0.0)


def test_reading_waits_for_the_end_of_the_step():
    with Clock(4) as clock, concurrent.futures.ThreadPoolExecutor(1) as host:
        step = Step()
        clock.begun(step)
        lap = host.submit(clock.read, 5)
        assert not concurrent.futures.wait([lap], timeout=0.2).done
        step.done.set()
        assert lap.result(30).steps == 1


def test_the_host_is_two_steps_ahead_and_no_more():
    with Clock(0) as clock, concurrent.futures.ThreadPoolExecutor(1) as host:
        steps = [Step() for _ in range(3)]
        clock.begun(steps[0])
        clock.begun(steps[1])  # does not wait
        third = host.submit(clock.begun, steps[2])
        assert not concurrent.futures.wait([third], timeout=0.2).done
        steps[0].done.set()
        third.result(30)
        for step in steps:
            step.done.set()


def test_memory_says_whose_it_is():
    gib = 2**30
    fullest = peak_memory([{"peak_bytes_in_use": 3 * gib}, {"peak_bytes_in_use": 5 * gib, "bytes_in_use": 9 * gib}])
    assert fullest == {"device_memory_gib": 5.0}
    for silent in ([None], [{}], [{"peak_bytes_in_use": gib}, None]):
        (peak,) = peak_memory(silent).items()
        assert peak == ("host_memory_gib", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def test_mfu_is_the_share_of_the_peak_of_all_devices(monkeypatch):
    asked = []
    monkeypatch.setattr(telemetry, "peak_flops", lambda *of: asked.append(of) or 1e9)
    meter = Meter(pictures=16, flops=3_000_000, dtype="bfloat16", mesh=make_mesh(8, 1))
    assert asked == [("cpu", "bfloat16")]
    values = meter.values(Lap(steps=20, seconds=5.0, starved=1.25))
    assert values.pop("mfu") == pytest.approx(3e6 * 20 / 5.0 / 8e9)
    assert values.pop("host_memory_gib") > 0.1
    assert values == {"images_per_second": 64.0, "seconds_per_step": 0.25, "data_wait": 0.25}
    assert "0.0 TFLOP/s" in str(meter)


def test_mfu_of_an_unknown_device_is_left_out():
    meter = Meter(16, 3_000_000, "float32", make_mesh(8, 1))
    assert meter.values(Lap(1, 1.0, 0.0)).keys() == {
        "images_per_second",
        "seconds_per_step",
        "data_wait",
        "host_memory_gib",
    }
    assert "peak of the devices: unknown" in str(meter)


def test_mfu_of_a_method_of_unknown_flops_is_left_out(monkeypatch):
    monkeypatch.setattr(telemetry, "peak_flops", lambda *of: 1e9)
    assert "mfu" not in Meter(16, 0, "float32", make_mesh(8, 1)).values(Lap(1, 1.0, 0.0))


@pytest.mark.parametrize("text", ["5", "5:5", "7:5", "a:9", "5:9:1", ":9", "-1:5", "12:13"])
def test_a_profile_that_cannot_be_is_refused(text):
    with pytest.raises(UserError, match=f"^--profile={text}: "):
        parse_window(text, total_steps=12)
    assert parse_window("3:12", total_steps=12) == (3, 12)


def test_a_bad_window_is_answered_in_one_line():
    result = command("train.py", "--config=tests/tiny.py", "--profile=9:3")
    assert_refused(result, "--profile=9:3", "START:STOP")


def trace_of(folder):
    """All events of the one trace in a folder."""
    (file,) = folder.glob("plugins/profile/*/*.trace.json.gz")
    (space,) = file.parent.glob("*.xplane.pb")  # what TensorBoard reads
    assert space.stat().st_size > 1000
    with gzip.open(file) as lines:  # what Perfetto reads
        return json.load(lines)["traceEvents"]


def traced_steps(events):
    return sorted(int(e["args"]["step_num"]) for e in events if e.get("name") == "train_step")


def loop(profile, clock, steps):
    @jax.jit
    def work(x):
        return x @ x

    x = work(jnp.eye(64))
    for step in steps:
        profile.end(step, x, clock)
        profile.begin(step, x, clock)
        with jax.profiler.StepTraceAnnotation("train_step", step_num=step):
            x = work(x)


@pytest.mark.parametrize(("window", "steps"), [((2, 4), range(7)), ((2, 9), range(5)), ((0, 5), range(3, 8))])
def test_profile_holds_the_steps_of_its_window_that_were_run(tmp_path, capsys, window, steps):
    with Clock(0) as clock, Profile(tmp_path, window) as profile:
        loop(profile, clock, steps)
    assert traced_steps(trace_of(tmp_path)) == [s for s in steps if window[0] <= s < window[1]]
    assert capsys.readouterr().out == f"profile: {tmp_path / 'plugins' / 'profile'}\n"


def test_a_run_that_is_past_the_window_says_so_and_traces_nothing(tmp_path, capsys):
    with Clock(0) as clock, Profile(tmp_path, (1, 3)) as profile:
        loop(profile, clock, range(5, 8))
    assert capsys.readouterr().out == "--profile=1:3: the run is at step 5 already, nothing is traced\n"
    assert not list(tmp_path.iterdir())


def test_without_a_window_nothing_is_traced(tmp_path):
    with Clock(0) as clock, Profile(tmp_path, None) as profile:
        loop(profile, clock, range(3))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_run_logs_its_speed_and_leaves_its_profile(tmp_path, capsys, monkeypatch):
    kept = []
    monkeypatch.setattr("larvseg_jax.train.keep_freed_pages", lambda compiled: kept.append(compiled) or compiled)
    config = tiny.get_config()
    config.data_root, config.workdir = str(tiny.write_data(tmp_path).parent), str(tmp_path / "run")
    config.total_steps, config.log_every = 4, 2
    config.evals, config.gallery, config.checkpoint.every = {}, 0, 100
    train(from_config(config), (1, 3))
    assert len(kept) == 1  # the memory that its compiled step frees
    lines = [line for line in read_history(tmp_path / "run") if line["kind"] == "train"]
    assert [line["step"] for line in lines] == [2, 4]
    for line in lines:
        assert line["images_per_second"] * line["seconds_per_step"] == pytest.approx(16)
        assert 0 <= line["data_wait"] < 1
        assert line["host_memory_gib"] > 0.1
        assert "mfu" not in line
        assert {"loss", "masks/L_seg", "tags/L_cls", "tags/L_aux", "learning_rate"} <= line.keys()
    shown = r"step \d/4  loss .*  images/s \d.*  waiting for data .*%  host memory .* GiB  .* left"
    assert len(re.findall(shown, capsys.readouterr().out)) == 2
    events = trace_of(tmp_path / "run" / "tensorboard")
    assert traced_steps(events) == [1, 2]
    assert "jit_train_step" in {e.get("args", {}).get("hlo_module") for e in events}
    assert list((tmp_path / "run" / "tensorboard").glob("events.out.tfevents.*"))
    assert "GiB" in (tmp_path / "run" / "report.html").read_text()
