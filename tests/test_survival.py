"""What a run does when its data, its numbers or its options are not what they were. Killing it: tests/drill."""

import json
import math
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from larvseg_jax import assemble
from larvseg_jax.config import from_config
from larvseg_jax.diverged import replay
from larvseg_jax.errors import UserError
from larvseg_jax.report.metric_log import read_history
from larvseg_jax.train import train
from larvseg_jax.training import history
from larvseg_jax.training.finite import Diverged, check_state
from larvseg_jax.training.state import TrainState
from larvseg_jax.weights.checkpoint import Checkpoints
from tests import tiny
from tests.child import environment

pytestmark = pytest.mark.usefixtures("one_device")

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture
def data(tmp_path) -> Path:
    return tiny.write_data(tmp_path / "data").parent


def config_of(data: Path, workdir: Path, steps: int = 4):
    config = tiny.get_config()
    config.data_root, config.workdir, config.total_steps = str(data), str(workdir), steps
    config.evals = {}
    config.gallery = 0
    config.checkpoint.every = 2
    return config


def steps_of(workdir: Path) -> list[int]:
    with Checkpoints(workdir, read_only=True) as checkpoints:
        return checkpoints.steps()


def test_an_array_that_is_not_finite_is_named():
    state = TrainState(np.int32(3), {"head": {"gamma": np.float32([1, np.nan])}}, (), {"slots": np.float16([0])})
    with pytest.raises(Diverged, match="params/head/gamma is not finite at step 3"):
        check_state(jax.tree.map(jax.numpy.asarray, state), 3)
    state.params["head"]["gamma"][1] = 0
    check_state(jax.tree.map(jax.numpy.asarray, state), 3)


@pytest.mark.slow
def test_a_run_that_diverges_saves_nothing_of_it_and_its_step_can_be_repeated(data, tmp_path, capsys):
    train(from_config(config_of(data, tmp_path / "run", 2)))
    config = config_of(data, tmp_path / "run", 8)
    config.data.on_error = "replace"
    whole = next(assemble.host_batches(run := from_config(config), assemble.open_streams(run), 2))["masks"]["id"]
    broken = data / "tiny" / "images" / f"{whole[3]}.png"
    picture = broken.read_bytes()
    broken.write_bytes(picture[:60])
    config.optimizer.update(
        learning_rate=3e38, weight_decay=100.0, warmup_steps=0
    )  # the loss of step 3 is finite, the parameters after it are not
    config.log_every = 100
    with pytest.raises(UserError, match="the first bad step is 3: lower optimizer.learning_rate") as error:
        train(from_config(config))
    assert steps_of(tmp_path / "run") == [2]
    file = tmp_path / "run" / "diverged" / "step_3.json"
    assert str(file) in str(error.value)
    said = json.loads(file.read_text())
    assert math.isfinite(said["losses"]["loss"])
    batch = next(assemble.host_batches(run := from_config(config), assemble.open_streams(run), 2))
    assert said["examples"] == {name: list(part["id"]) for name, part in batch.items()}
    used = said["examples"]["masks"]  # the photos that were really used
    assert [place for place in range(8) if used[place] != whole[place]] == [3]
    assert whole[3] not in used
    assert {"head/gamma", "backbone/Transformer/encoderblock_1"} <= said["gradient_norms"].keys()
    capsys.readouterr()
    replay(file)
    printed = capsys.readouterr().out
    assert "the losses are those of then" in printed
    assert f"masks: {', '.join(used)}" in printed
    assert "the photos are not those of then" not in printed
    broken.write_bytes(picture)
    # With a rate that suits, the run goes on from its checkpoint, and says what has changed.
    train(from_config(config_of(data, tmp_path / "run", 4)))
    assert steps_of(tmp_path / "run")[-1] == 4


@pytest.mark.slow
def test_changed_options_are_said_a_finished_run_is_lengthened_and_other_data_accepted(data, tmp_path, capsys):
    train(from_config(config_of(data, tmp_path / "run", 2)))
    config = config_of(data, tmp_path / "run", 4)
    config.optimizer.learning_rate = 0.5
    config.streams.tags.lambda_aux = 0.25
    capsys.readouterr()
    train(from_config(config))
    printed = capsys.readouterr().out
    resumed = history.read(tmp_path / "run")[1]
    assert (resumed["event"], resumed["step"]) == ("resumed", 2)
    for line in ("optimizer.learning_rate: 0.5, was ", "streams.tags.lambda_aux: 0.25, was ", "total_steps: 4, was 2"):
        assert f"changed: {line}" in printed
        assert any(line in detail for detail in resumed["details"])
    assert len(resumed["details"]) == 4

    splits = json.loads((data / "tiny" / "splits.json").read_text())
    splits["train"].pop()
    (data / "tiny" / "splits.json").write_text(json.dumps(splits))
    config.total_steps, changed = 5, "streams.masks.pictures: 9, was 10"
    with pytest.raises(UserError, match=rf"{changed}.*--accept=data"):
        train(from_config(config))
    train(from_config(config), accept=["data"])
    assert f"changed: {changed}" in history.read(tmp_path / "run")[-1]["details"]
    capsys.readouterr()
    train(from_config(config))  # accepted once is enough; and of a finished run nothing is compiled to find that out
    assert "compilation" not in capsys.readouterr().out


def later_photo(data: Path, workdir: Path) -> Path:
    """A masked photo that no batch before step 1 shows, and that of step 1 does."""
    run = from_config(config_of(data, workdir))
    batches = assemble.host_batches(run, assemble.open_streams(run), 0)
    first, second = (set(next(batches)["masks"]["id"]) for _ in range(2))
    return data / "tiny" / "images" / f"{Path(sorted(second - first)[0]).stem}.png"


@pytest.mark.slow
def test_a_run_that_stopped_at_a_photo_goes_on_with_it_mended_or_without_it(data, tmp_path, capsys):
    """Without: one more option, and no other acceptance; restarts do not change what takes its place."""
    workdir = tmp_path / "run"
    photo = later_photo(data, tmp_path / "x")
    whole_photo = photo.read_bytes()
    photo.write_bytes(whole_photo[:60])
    with pytest.raises(UserError, match=rf"{photo.name}.*all steps so far are saved.*--config.data.on_error=replace "):
        train(from_config(config_of(data, workdir)))
    assert steps_of(workdir) == [1]
    shutil.copytree(workdir, tmp_path / "mended")
    capsys.readouterr()
    config = config_of(data, workdir)
    config.data.on_error = "replace"
    stopped = train(from_config(config))
    assert steps_of(workdir)[-1] == 4
    printed = capsys.readouterr().out
    assert "changed: data.on_error: 'replace', was 'stop'" in printed
    assert printed.count(f"{photo.name}: no readable picture") == 1

    config = config_of(data, tmp_path / "whole")
    config.data.on_error = "replace"
    whole = train(from_config(config))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(stopped), jax.device_get(whole))

    del config.data  # counted from the order of the photos, as it is where none is replaced
    photo.write_bytes((data / "tiny" / "images" / "p17.png").read_bytes())
    batches = assemble.host_batches(run := from_config(config), assemble.open_streams(run), 0)
    times = sum(list(batch["masks"]["id"]).count(photo.stem) for batch in batches)
    for folder in (workdir, tmp_path / "whole"):
        counted = [line["masks/replaced"] for line in read_history(folder) if line["kind"] == "data"]
        assert sum(counted) == times > 1
        (event,) = (line for line in history.read(folder) if line["event"] == "photo replaced")
        assert event["step"] == 2
        assert event["details"][0] == "masks"
        assert photo.name in event["details"][2]
        report = (folder / "report.html").read_text()
        assert "photos replaced in masks" in report
        assert f"{times} times, as 1 cannot be used: " in report

    photo.write_bytes(whole_photo)
    mended, untouched = (train(from_config(config_of(data, tmp_path / name))) for name in ("mended", "untouched"))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(mended), jax.device_get(untouched))


@pytest.mark.slow
def test_a_bad_photo_of_an_evaluation_costs_no_step_and_is_not_replaced(data, tmp_path):
    config = config_of(data, tmp_path / "run")
    config.evals = {"val": tiny.get_config().evals.val}
    config.evals.val.every = 3
    config.data.on_error = "replace"
    photo = data / "tiny" / "images" / "p20.png"
    whole = photo.read_bytes()
    photo.write_bytes(whole[:60])
    with pytest.raises(UserError, match=rf"{photo.name}.*all steps so far are saved") as stopped:
        train(from_config(config))
    assert "on_error" not in str(stopped.value)
    assert steps_of(tmp_path / "run") == [2, 3]
    photo.write_bytes(whole)
    assert int(train(from_config(config)).step) == 4


def stopped_by(number: signal.Signals, data: Path, workdir: Path, ready) -> tuple[int, str]:
    """Starts a long run, sends a signal once it is `ready`; exit code and stderr."""
    arguments = [f"--config.workdir={workdir}", f"--config.data_root={data}", "--config.total_steps=100000"]
    with (output := workdir.with_suffix(".out")).open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "train.py", "--config=tests/tiny.py", *arguments, "--config.checkpoint.every=100000"],
            cwd=REPOSITORY,
            env=environment(PYTHONUNBUFFERED="1"),
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
        )
    deadline = time.monotonic() + 240
    while not ready(output.read_text()):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors


@pytest.mark.slow
def test_ctrl_c_saves_and_says_at_which_step(data, tmp_path):
    workdir = tmp_path / "run"
    code, errors = stopped_by(signal.SIGINT, data, workdir, lambda _: any(read_history(workdir)))
    (step,) = steps_of(workdir)
    assert code == 128 + signal.SIGINT
    assert errors.splitlines()[-1] == f"stopped: the same command goes on from step {step}, which is saved"
    # In start-up nothing is lost.
    code, errors = stopped_by(signal.SIGINT, data, workdir, lambda printed: "compilation ..." in printed)
    assert code == 128 + signal.SIGINT
    assert errors.splitlines()[-1].startswith(f"stopped: the same command goes on from step {step}")
    code, errors = stopped_by(signal.SIGTERM, data, tmp_path / "new", lambda printed: "devices ..." in printed)
    assert code == 128 + signal.SIGTERM
    assert errors.splitlines()[-1] == "stopped: the same command begins again; no step was taken yet"
