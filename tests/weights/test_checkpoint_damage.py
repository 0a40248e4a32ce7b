"""Whatever part of a checkpoint is damaged, the one before is taken; and the best one outlives all restarts."""

import dataclasses
import gc
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from larvseg_jax.assemble import fresh_state, state_layout
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.errors import UserError
from larvseg_jax.weights.checkpoint import Checkpoints, DamagedCheckpoint
from larvseg_jax.weights.record import Record
from larvseg_jax.weights.stored_checkpoint import read_checkpoint
from tests import tiny

# Orbax's, of arrays that were on their way when another could not be read; beyond `quiet_reading`.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def run():
    """Of few arrays: reading them is what most of the time goes into."""
    config = tiny.get_config()
    config.model.update(depth=1, stem="patch", drop_path=0.0)
    config.optimizer.update(name="sgd", momentum=0.0, weight_decay=0.0)
    return from_config(config)


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(1, 1, jax.devices()[:1])


@pytest.fixture(scope="module")
def state(run, mesh):
    return fresh_state(run, mesh)


@pytest.fixture(scope="module")
def record(run, state):
    return Record.of(run.settings, run.vocabulary.classes, {"seed": 0}, state)


def save(folder, record, state, scores):
    """One process: opens the folder, saves the steps with their scores, and closes it."""
    with Checkpoints(folder, keep_last=2) as checkpoints:
        for step, score in scores.items():
            checkpoints.save(record, dataclasses.replace(state, step=jnp.int32(step)), step, score)
    with Checkpoints(folder, read_only=True) as checkpoints:
        return checkpoints.steps()


@pytest.mark.slow
def test_the_best_one_outlives_all_restarts(tmp_path, record, state):
    assert save(tmp_path, record, state, {10: 0.2, 20: 0.5, 30: 0.3, 32: None}) == [20, 30, 32]
    assert save(tmp_path, record, state, {35: 0.1}) == [20, 32, 35]
    assert save(tmp_path, record, state, {40: None}) == [20, 35, 40]
    assert save(tmp_path, record, state, {45: 0.6, 50: 0.1, 55: 0.1}) == [45, 50, 55]
    assert save(tmp_path, record, state, {60: 0.2}) == [45, 55, 60]


@pytest.fixture(scope="module")
def written(tmp_path_factory, record, state):
    folder = tmp_path_factory.mktemp("written")
    save(folder, record, state, {1: 0.1, 2: 0.2})
    return folder


def flip(data: bytes) -> bytes:
    """One bit in the middle."""
    place = len(data) // 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :] if data else b"x"


DAMAGES = {
    "flipped": flip,
    "half": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "{}": lambda data: b"{}",
    "[]": lambda data: b"[]",
}


def files(step):
    return sorted(path.relative_to(step) for path in step.rglob("*") if path.is_file())


@pytest.mark.slow
def test_no_damage_to_any_file_is_taken_for_a_checkpoint_or_ends_in_a_traceback(
    written, tmp_path, run, mesh, state, record
):
    """Every file of the newest checkpoint in every way: what comes back is step 2 as it was, or step 1 as it was."""
    layout, outcomes = state_layout(run, mesh), set()
    for file in files(written / "checkpoints" / "2"):
        text = (written / "checkpoints" / "2" / file).read_bytes()[:1] == b"{"
        for name in DAMAGES if text else ("flipped", "half", "empty"):
            damage = DAMAGES[name]
            folder = shutil.copytree(written, tmp_path / "copy")
            path = folder / "checkpoints" / "2" / file
            path.write_bytes(damage(path.read_bytes()))
            with Checkpoints(folder) as checkpoints:
                restored, _ = checkpoints.restore_latest(layout, record)
                step = int(restored.step)
                assert checkpoints.record(step).settings == record.settings, (file, name)
            outcomes.add(step)
            expected = dataclasses.replace(state, step=np.int32(step))
            jax.tree.map(np.testing.assert_array_equal, jax.device_get(restored), jax.device_get(expected))
            shutil.rmtree(folder)
    assert outcomes == {1, 2}
    gc.collect()  # so that what is left of it is not held against the tests that follow


def change_a_limit(text: str) -> str:
    assert '"max_labels": 4' in text
    return text.replace('"max_labels": 4', '"max_labels": 5')


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("record", change_a_limit),
        ("record", lambda text: text.replace('"classes": [', '"classes": ["pink", ')),
        ("record", lambda text: "{}"),
        ("record", lambda text: "[]"),
        ("digest", lambda text: "{}"),
        ("digest", lambda text: "[]"),
        ("digest", lambda text: text.replace('"leaves"', '"leafs"')),
        ("digest", lambda text: text.replace("[", '["a", ')),
    ],
)
def test_what_a_checkpoint_says_is_covered_too(written, tmp_path, run, mesh, record, part, change):
    folder = shutil.copytree(written, tmp_path / "run")
    (file,) = (folder / "checkpoints" / "2" / part).rglob("metadata")
    file.write_text(change(file.read_text()))
    with Checkpoints(folder, read_only=True) as checkpoints, pytest.raises(DamagedCheckpoint):
        checkpoints.restore(2, state_layout(run, mesh))
    assert read_checkpoint(folder).step == 1  # without a step asked for
    with pytest.raises(UserError, match="damaged|no readable record"):
        read_checkpoint(folder, 2)
    with Checkpoints(folder) as checkpoints:
        assert int(checkpoints.restore_latest(state_layout(run, mesh), record)[0].step) == 1


def test_a_checkpoint_under_another_step_is_refused(written, tmp_path, run, mesh):
    folder = shutil.copytree(written, tmp_path / "run")
    (folder / "checkpoints" / "2").rename(folder / "checkpoints" / "7")
    with Checkpoints(folder, read_only=True) as checkpoints, pytest.raises(DamagedCheckpoint, match="step 2"):
        checkpoints.restore(7, state_layout(run, mesh))
