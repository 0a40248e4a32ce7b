"""`make benchmarks-gpu`: parts that resume, fail and run late; every measurement on a CPU, with tiny sizes."""

import json
import math
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import _gpu_parts, _step_speed, attention, gpu, precision
from benchmarks._parts import Outcome, run_part
from benchmarks._turns import seconds_in_turn
from larvseg_jax import assemble
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.errors import UserError
from tests import tiny


def python(code):
    return [sys.executable, "-c", code]


def test_a_part_hands_back_what_it_wrote(capfd):
    code = "import sys, json; print('on its way'); open(sys.argv[-1].partition('=')[2], 'w').write(json.dumps([1, 2]))"
    outcome = run_part(python(code), 60)
    assert outcome[:3] == ("done", [1, 2], "")
    assert "on its way" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise MemoryError('RESOURCE_EXHAUSTED: 4 GB\\n  in two lines')", "MemoryError: RESOURCE_EXHAUSTED: 4 GB"),
        ("import sys; sys.exit('error: this needs torch')", "error: this needs torch"),
        ("import os; os._exit(7)", "ended with code 7"),
        ("import os; os.kill(os.getpid(), 9)", "ended with code -9"),
        ("pass", "wrote no result"),
        ("import sys; open(sys.argv[-1].partition('=')[2], 'w').write('[1')", "wrote no result"),
        (
            "import subprocess, sys; subprocess.run([sys.executable, '-c', 'raise ValueError(5)'], check=True)",
            "ValueError: 5",
        ),
    ],
)
def test_a_part_that_fails_says_why(code, reason, capfd):
    assert run_part(python(code), 60)[:3] == ("failed", None, reason)


def test_a_part_that_takes_too_long_ends_with_all_that_it_started(tmp_path):
    pids = tmp_path / "pid"
    child = f"import os, time; open({str(pids)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    outcome = run_part(python(code), 3.0)
    assert outcome[:3] == ("failed", None, "took more than 3 s")
    assert outcome.seconds < 30
    for _ in range(100):  # its new parent takes note of its end
        if state_of(pids.read_text()) == "Z":
            return
        time.sleep(0.1)
    pytest.fail("the part's own process lives on")


def state_of(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


class Machine:
    """Parts that do as they are told, one answer after the other."""

    def __init__(self, **answers):
        self.answers, self.asked = answers, []

    def __call__(self, part):
        self.asked.append(part)
        answer = self.answers[part].pop(0)
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, str):
            return Outcome("failed", None, answer, 2.4)
        return Outcome("done", answer, "", 2.4)


ROWS = [{"batch": 8, "ms": 1.23456789}, {"batch": 16, "failed": "out of memory"}]


def test_parts_are_kept_one_by_one_and_taken_up_again(tmp_path, capsys):
    file = tmp_path / "results" / "gpu.json"
    machine = Machine(a=[ROWS], b=["no memory"], c=[KeyboardInterrupt()])
    with pytest.raises(KeyboardInterrupt):
        gpu.run_parts(["a", "b", "c"], (), "GPU X", file, machine)
    kept = json.loads(file.read_text())
    assert kept["device"] == "GPU X"
    assert {name: entry["status"] for name, entry in kept["parts"].items()} == {"a": "done", "b": "failed"}
    assert kept["parts"]["a"]["rows"] == [{"batch": 8, "ms": 1.235}, {"batch": 16, "failed": "out of memory"}]
    assert kept["parts"]["b"]["reason"] == "no memory"
    for entry in kept["parts"].values():
        assert entry["versions"]["jax"] == jax.__version__
        assert entry["commit"]
        assert len(entry["date"]) == 10
        assert entry["seconds"] == 2
    assert "out of memory" in capsys.readouterr().out

    machine = Machine(b=[[{"ms": 5}]], c=[[{"ms": 6}]])
    assert gpu.run_parts(["a", "b", "c"], (), "GPU X", file, machine) == {}
    assert machine.asked == ["b", "c"]
    then = json.loads(file.read_text())["parts"]
    assert then["a"] == kept["parts"]["a"]
    assert "reason" not in then["b"]
    assert {name: entry["status"] for name, entry in then.items()} == dict.fromkeys("abc", "done")
    assert "a: done at commit" in capsys.readouterr().out


def test_a_part_that_fails_stops_no_other_and_takes_no_earlier_result(tmp_path, capsys):
    file = tmp_path / "gpu.json"
    gpu.run_parts(["a"], (), "GPU X", file, Machine(a=[ROWS]))
    machine = Machine(a=["took more than 600 s"], b=[ROWS])
    assert gpu.run_parts(["a", "b"], ["a"], "GPU X", file, machine) == {"a": "took more than 600 s"}
    assert machine.asked == ["a", "b"]
    entries = json.loads(file.read_text())["parts"]
    assert [entries[part]["status"] for part in "ab"] == ["done", "done"]
    assert "the earlier result stays" in capsys.readouterr().out


def test_parts_that_are_asked_for_again_are_measured_anew(tmp_path):
    file = tmp_path / "gpu.json"
    gpu.run_parts(["a", "b"], (), "GPU X", file, Machine(a=[[{"ms": 1}]], b=[[{"ms": 2}]]))
    gpu.run_parts(["a", "b"], ["b"], "GPU X", file, Machine(b=[[{"ms": 3}]]))
    entries = json.loads(file.read_text())["parts"]
    assert [entries[part]["rows"][0]["ms"] for part in "ab"] == [1, 3]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"parts": {"a": {}}}', '{"parts": {"a": {"status": "x"}}}'])
def test_damaged_results_are_refused_and_stay(tmp_path, text):
    file = tmp_path / "gpu.json"
    file.write_text(text)
    with pytest.raises(UserError, match=r"gpu\.json cannot be read"):
        gpu.run_parts(["a"], (), "GPU X", file, Machine())
    assert file.read_text() == text


def test_devices_have_files_of_their_own(tmp_path):
    assert gpu.file_of(tmp_path, "NVIDIA H100 80GB HBM3").name == "nvidia_h100_80gb_hbm3.json"
    assert gpu.file_of(tmp_path, "NVIDIA H200").name == "nvidia_h200.json"


def test_parts_are_chosen_by_name():
    assert gpu.chosen("parts", "precision,attention", ()) == ["attention", "precision"]
    assert gpu.chosen("parts", None, ["x"]) == ["x"]
    with pytest.raises(UserError, match=r"--again=attention,wrong: there is no part 'wrong'"):
        gpu.chosen("again", "attention,wrong", ())


def test_a_machine_without_a_gpu_is_answered_in_a_line(tmp_path):
    with pytest.raises(UserError, match="there is no GPU here"):
        gpu.main(gpu.flags([f"--out={tmp_path}/results"]).parse())
    assert not list(tmp_path.iterdir())


def test_works_take_turns_and_the_first_round_is_not_timed():
    calls = []
    found = seconds_in_turn({"a": lambda: calls.append("a"), "b": lambda: (calls.append("b"), time.sleep(0.02))}, 2)
    assert calls == ["a", "b"] * 3
    assert [len(seconds) for seconds in found.values()] == [2, 2]
    assert min(found["b"]) >= 0.02


@pytest.fixture(scope="module")
def run():
    return from_config(tiny.get_config())


def test_a_random_batch_is_what_the_step_takes(run):
    mesh = make_mesh(1, 1, jax.devices()[:1])
    batch, like = _step_speed.random_batch(run, mesh), assemble.abstract_batch(run, mesh)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), batch) == jax.tree.map(lambda x: (x.shape, x.dtype), like)
    label, tags = np.asarray(batch["masks"]["label"]), np.asarray(batch["tags"]["tags"])
    assert 0 <= label.min() <= label.max() < 3  # background, red, green
    assert (label == label[:, :1, :1]).all()  # a square of 32 is larger than these crops
    assert ((tags[:, 0] >= 0) & (tags[:, 0] < 5)).all()
    assert (tags[:, 1:] == -1).all()
    assert all(np.asarray(stream["valid"]).all() for stream in batch.values())


def test_steps_by_batch_up_to_the_first_that_does_not_fit(run, monkeypatch):
    monkeypatch.setattr(_step_speed, "peak_flops", lambda device, dtype: 1e12)
    monkeypatch.setattr(_step_speed, "WARM_UP", 1)

    def make(size):
        if size > 8:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 bytes")
        return run

    done, failed = _step_speed.by_batch(make, [8, 16, 32], steps=3)
    assert failed == {"of each stream": 16, "failed": "out of memory"}
    assert done["of each stream"] == 8
    assert done["best"] == "yes"
    assert math.isfinite(done["loss"])
    assert done["best ms"] <= done["ms"]
    assert done["pictures/s"] * done["ms"] / 1e3 == pytest.approx(16)  # 8 of each of two streams
    flops = assemble.make_method(run, make_mesh(1, 1, jax.devices()[:1])).flops()
    assert done["MFU"] * done["ms"] / 1e3 * 1e12 == pytest.approx(sum(flops.values()))


def test_another_error_than_memory_is_no_row():
    def make(size):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        _step_speed.by_batch(make, [8], steps=1)


def test_attention_has_a_row_for_each_way_and_says_what_is_refused():
    rows = attention.layers([(1, 9, 2, 8), (2, 4, 2, 8)], "bfloat16", calls=2, repeats=2)
    assert [row["tokens"] for row in rows] == [9, 9, 9, 4, 4, 4]
    named = {row["attention"].partition(" ")[0]: row for row in rows[:3]}
    assert set(named) == {"XLA", "cuDNN", "larvseg_jax"}
    assert 0 < named["XLA"]["best ms"] <= named["XLA"]["ms"]
    assert "failed" in named["cuDNN"]  # no GPU here


def test_precision_has_a_row_for_each_way_and_its_error_of_float64():
    rows = precision.measure({"tiny": ("pd,nd->pn", (70, 16), (600, 16))}, repeats=2)
    named = {row["precision"]: row for row in rows}
    assert list(named) == [*(name for name in precision.PRECISIONS if name != "TF32"), "TF32"]
    assert named["float32 in full"]["over float32"] == 1
    assert 1e-9 < named["larvseg_jax (precise_einsum)"]["error"] < 1e-6
    assert "TF32" in named["TF32"]["failed"]  # which CPUs do not have


def test_the_error_is_seen_where_a_product_is_imprecise():
    def rounded(subscripts, a, b):
        return jax.numpy.einsum(subscripts, a.astype("bfloat16"), b.astype("bfloat16")).astype("float32")

    a, b = jax.random.normal(jax.random.key(0), (2, 70, 16))
    assert 1e-3 < precision._error(rounded, "nd,ed->ne", a, b) < 1e-2


def test_every_part_is_named_in_the_command_and_in_the_docs():
    page = (Path(gpu.__file__).parent.parent / "docs" / "performance.md").read_text()
    for part in _gpu_parts.PARTS:
        assert part in gpu.__doc__
        assert f"`{part}`" in page
