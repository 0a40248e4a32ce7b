"""What is seen of a training: metrics a step late, each under its own step; nothing that has diverged is saved."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.devices.processes import Stopping
from larvseg_jax.errors import DataError, UserError
from larvseg_jax.evaluation.config import EvalConfig
from larvseg_jax.evaluation.evaluator import Evaluator
from larvseg_jax.report.metric_log import read_history
from larvseg_jax.train import run_steps
from larvseg_jax.training.history import read
from larvseg_jax.training.recorder import Recorder
from larvseg_jax.training.state import TrainState
from larvseg_jax.training.telemetry import Meter
from larvseg_jax.weights.saves import Saves
from tests import tiny

TOTAL = 7


def recorder_of(workdir, *, start=0, every=1, **changes):
    meter = Meter(16, 0, "float32", make_mesh(8, 1))
    return Recorder(workdir, start, TOTAL, every, lambda step: 0.1 * step, meter, **changes)


def logged(workdir):
    """Step -> (loss, learning rate)."""
    lines = [line for line in read_history(workdir) if line["kind"] == "train"]
    return {line["step"]: (line["loss"], pytest.approx(line["learning_rate"])) for line in lines}


def loss(value):
    return {"loss": jnp.float32(value)}


def test_metrics_are_read_a_step_late_and_logged_with_their_own_step(tmp_path):
    with recorder_of(tmp_path, start=2) as recorder:
        expected = {}
        for step in range(3, 6):
            with recorder.step(step - 1):
                recorder.begun(step, loss(step))
            assert logged(tmp_path) == expected  # nothing waits for the step just begun
            expected[step] = (step, 0.1 * (step - 1))
        recorder.catch_up()
        assert logged(tmp_path) == expected
        recorder.catch_up()  # there is nothing left to be read
        assert logged(tmp_path) == expected


def test_between_logged_steps_nothing_is_logged_but_the_last_step_always_is(tmp_path):
    with recorder_of(tmp_path, every=3) as recorder:
        for step in range(1, TOTAL + 1):
            recorder.begun(step, loss(step))
        recorder.catch_up()
    assert logged(tmp_path) == {step: (step, 0.1 * (step - 1)) for step in (3, 6, 7)}
    steps = [line["seconds_per_step"] for line in read_history(tmp_path)]
    assert len(steps) == 3
    assert min(steps) > 0


def test_what_a_method_finds_wrong_is_said_once_and_not_at_the_beginning(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("larvseg_jax.training.recorder._BEGINNING", 0.2)  # of 7 steps: the first one

    def symptoms(metrics):
        return [f"it is {metrics['loss']:.0f}"] if metrics["loss"] > 2 else []

    with recorder_of(tmp_path, symptoms=symptoms) as recorder:
        for step, value in enumerate((3, 3, 3, 4, 1), start=1):
            recorder.begun(step, loss(value))
        recorder.catch_up()
    said = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert said == ["warning: step 2: it is 3", "warning: step 4: it is 4"]
    events = [(line["event"], line["step"], line["details"]) for line in read(tmp_path)]
    assert events == [("warning", 2, ["it is 3"]), ("warning", 4, ["it is 4"])]


def test_an_evaluation_is_logged_under_its_name(tmp_path):
    with recorder_of(tmp_path) as recorder:
        recorder.scored(4, "city", {"mIoU": 0.5})
    (line,) = read_history(tmp_path)
    assert (line["step"], line["kind"], line["mIoU"]) == (4, "eval", 0.5)
    assert "city" in line.values()


@jax.jit
def train_step(state, batch):
    return dataclasses.replace(state, step=state.step + 1), {"loss": batch["x"]["image"]}


class Saved(Saves):
    """Writes nothing; `steps` and `scores` are those that were saved, `insisted` those that had to be written."""

    def __init__(self, *, refused=False):
        self.steps, self.scores, self.insisted, self.refused = [], [], [], refused

    def __call__(self, state, step, score):
        self.steps.append(step)
        self.scores.append(score)

    def insist(self, state, step, score):
        self(state, step, score)
        self.insisted.append(step)

    def again(self):
        return self.refused

    def written(self):
        return True


def run_loop(workdir, losses, *, every, saves=None, place=jnp.asarray, evaluators=None):
    """The loop of a training whose losses these are, saved at every second step."""
    config = tiny.get_config()
    config.total_steps, config.checkpoint.every = TOTAL, 2
    state = TrainState(jnp.zeros((), jnp.int32), {}, (), ())
    batches = iter([{"x": {"image": place(np.float32(value))}} for value in losses])
    return run_steps(
        from_config(config),
        train_step,
        state,
        batches,
        evaluators or {},
        Saved() if saves is None else saves,
        recorder_of(workdir, every=every),
        Stopping(),
    )


def test_the_loop_saves_and_logs_every_step_with_its_own_metrics(tmp_path):
    saved = Saved()
    state, _ = run_loop(tmp_path, range(1, TOTAL + 1), every=1, saves=saved)
    assert int(state.step) == TOTAL
    assert saved.steps == [2, 4, 6, 7]
    assert saved.insisted == [7]
    assert logged(tmp_path) == {step: (step, 0.1 * (step - 1)) for step in range(1, TOTAL + 1)}


def test_a_save_that_the_disk_has_refused_is_tried_again_between_those_that_are_due(tmp_path):
    saved = Saved(refused=True)
    run_loop(tmp_path, range(1, TOTAL + 1), every=1, saves=saved)
    assert saved.steps == list(range(1, TOTAL + 1))


@pytest.mark.parametrize("every", [1, 100])
@pytest.mark.parametrize(("finite", "saved_before"), [(1, []), (3, [2]), (4, [2, 4]), (6, [2, 4, 6])])
def test_a_state_that_has_diverged_is_not_saved(tmp_path, finite, saved_before, every):
    saved = Saved()
    losses = [1.0] * finite + [np.nan] * (TOTAL - finite)
    with pytest.raises(UserError, match=r"loss is nan at step (\d): lower optimizer.learning_rate") as refused:
        run_loop(tmp_path, losses, every=every, saves=saved)
    assert saved.steps == saved_before
    first, next_saved = finite + 1, min(finite // 2 * 2 + 2, TOTAL)
    # It is seen where the step is logged, else before the next save.
    assert f"at step {first if every == 1 else next_saved}" in str(refused.value)


@pytest.mark.parametrize("diverged", [2, 7])
def test_one_bad_step_right_before_a_save_is_seen(tmp_path, diverged):
    losses = [np.inf if step == diverged else 1.0 for step in range(1, TOTAL + 1)]
    with pytest.raises(UserError, match=f"loss is inf at step {diverged}"):
        run_loop(tmp_path, losses, every=100)


def test_the_loop_refuses_a_batch_that_is_not_on_the_devices(tmp_path):
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        run_loop(tmp_path, [1.0], every=1, place=np.asarray)
    assert read_history(tmp_path) == []


class Failing(Evaluator):
    """An evaluation after every third step."""

    def __init__(self, error):
        self.config, self.error = EvalConfig(every=3), error

    def __call__(self, params, memory):
        raise self.error


def test_the_state_is_saved_before_a_bad_photo_ends_an_evaluation(tmp_path):
    saved = Saved()
    evaluators = {"val": Failing(DataError("unreadable", "val/a.png: cannot be read", "replace it"))}
    with pytest.raises(UserError) as stopped:
        run_loop(tmp_path, [1.0] * TOTAL, every=1, saves=saved, evaluators=evaluators)
    saved_first = "all steps so far are saved: the same command goes on from here"
    assert str(stopped.value) == f"val/a.png: cannot be read: replace it; {saved_first}"
    assert (saved.steps, saved.scores) == ([2, 3], [None, None])
    assert list(logged(tmp_path)) == [1, 2, 3]


def test_a_state_whose_scores_are_not_finite_is_not_saved(tmp_path):
    saved = Saved()
    evaluators = {"val": Failing(UserError("logits of photo 'a' are not finite: the weights have diverged"))}
    with pytest.raises(UserError, match="have diverged$"):
        run_loop(tmp_path, [1.0] * TOTAL, every=1, saves=saved, evaluators=evaluators)
    assert saved.steps == [2]
