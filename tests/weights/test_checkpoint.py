"""Checkpoints: what is kept, what is refused, what is noticed."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from larvseg_jax.assemble import fresh_state, state_layout
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.errors import UserError
from larvseg_jax.weights import checkpoint
from larvseg_jax.weights.checkpoint import Checkpoints
from larvseg_jax.weights.digest import digest
from larvseg_jax.weights.record import Record, describe
from larvseg_jax.weights.saved_step import read_state
from tests import tiny

DATA = {"seed": 0, "streams.masks": {"batch_size": 8}}


@pytest.fixture(scope="module")
def run():
    return from_config(tiny.get_config())


@pytest.fixture(scope="module")
def state(run):
    state = fresh_state(run, make_mesh(2, 4))
    slots = jax.random.normal(jax.random.key(1), state.memory.slots.shape)
    return dataclasses.replace(state, memory=dataclasses.replace(state.memory, slots=slots))


@pytest.fixture(scope="module")
def record(run, state):
    return Record.of(run.settings, run.vocabulary.classes, DATA, state)


@pytest.fixture(scope="module")
def written(tmp_path_factory, state, record):
    folder = tmp_path_factory.mktemp("written")
    with Checkpoints(folder, keep_last=2) as checkpoints:
        for step, miou in enumerate([0.1, 0.4, None, 0.2, 0.3], start=1):
            checkpoints.save(record, dataclasses.replace(state, step=jnp.int32(step)), step, miou)
    return folder


@pytest.fixture
def saved(tmp_path, written):
    """Checkpoints of steps 1 to 5, the best of which is 2; the state of step n has step = n."""
    return shutil.copytree(written, tmp_path, dirs_exist_ok=True)


def test_the_last_two_and_the_best_are_kept(saved):
    with Checkpoints(saved) as checkpoints:
        assert checkpoints.steps() == [2, 4, 5]


@pytest.mark.parametrize("shape", [(8, 1), (4, 2), (2, 4)])
def test_restores_bit_identical_on_another_mesh(saved, run, state, record, shape):
    with Checkpoints(saved) as checkpoints:
        restored, _ = checkpoints.restore_latest(state_layout(run, make_mesh(*shape)), record)
    assert restored.memory.slots.sharding.mesh.shape["model"] == shape[1]
    expected = dataclasses.replace(state, step=np.int32(5))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(restored), jax.device_get(expected))


def lose_the_data(step: Path) -> None:
    shutil.rmtree(step / "state")


def change_the_digest(step: Path) -> None:
    """As if one array were not what was saved: Orbax alone restores it silently."""
    (file,) = (path for path in (step / "digest").rglob("*") if path.is_file() and b"leaves" in path.read_bytes())
    leaves = json.loads(file.read_text())["leaves"]
    leaves[3] ^= 1
    file.write_text(json.dumps({"leaves": leaves}))


@pytest.mark.parametrize("damage", [lose_the_data, change_the_digest])
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_is_taken(saved, run, record, damage):
    damage(saved / "checkpoints" / "5")
    with Checkpoints(saved) as checkpoints:
        layout = state_layout(run, make_mesh(2, 4))
        restored, _ = checkpoints.restore_latest(layout, record)
        assert int(restored.step) == 4
        # The run comes to step 5 again: it is saved anew, and the damaged one is not thrown away.
        checkpoints.save(record, dataclasses.replace(restored, step=jnp.int32(5)), 5, None)
    with Checkpoints(saved) as checkpoints:
        assert int(checkpoints.restore(5, layout).step) == 5
    assert [path.name[:2] for path in (saved / "damaged").iterdir()] == ["5_"]


def test_a_checkpoint_that_is_finished_in_the_meantime_is_not_set_aside(saved, run, record, monkeypatch):
    """A run that has diverged goes back to a checkpoint while a newer one is still being written."""
    newer = saved / "checkpoints" / "6"

    def read_slowly(folder, template):
        shutil.copytree(folder, newer)
        return read_state(folder, template)

    monkeypatch.setattr(checkpoint, "read_state", read_slowly)
    with Checkpoints(saved) as checkpoints:
        state, _ = checkpoints.restore_latest(state_layout(run, make_mesh(2, 4)), record)
    assert int(state.step) == 5
    assert newer.exists()
    assert not (saved / "damaged").exists()


def test_a_reader_leaves_a_save_under_way_alone(saved):
    unfinished = saved / "checkpoints" / "6.orbax-checkpoint-tmp-0"
    shutil.copytree(saved / "checkpoints" / "5", unfinished)
    before = sorted(saved.rglob("*"))
    with Checkpoints(saved, read_only=True) as checkpoints:
        assert checkpoints.steps() == [2, 4, 5]
        checkpoints.record(5)
    assert sorted(saved.rglob("*")) == before


def test_a_workdir_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write .*file/checkpoints .*another workdir"):
        Checkpoints(tmp_path / "file")


def test_nothing_usable_is_an_error_and_not_a_fresh_start(saved, run, record):
    for step in (2, 4, 5):
        shutil.rmtree(saved / "checkpoints" / str(step) / "state")
    with Checkpoints(saved) as checkpoints, pytest.raises(UserError, match="no usable checkpoint"):
        checkpoints.restore_latest(state_layout(run, make_mesh(2, 4)), record)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ("background", "red", "green", "blue", "pink")}, r"another vocabulary.*'grey', 'pink'"),
        ({"classes": ("red", "background", "green", "blue", "grey")}, "same names in another order"),
        ({"data": {**DATA, "seed": 1}}, r"trained on other batches \(seed: 1, was 0\)"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(saved, run, record, change, message):
    other = dataclasses.replace(record, **change)
    with Checkpoints(saved) as checkpoints, pytest.raises(UserError, match=message):
        checkpoints.restore_latest(state_layout(run, make_mesh(2, 4)), other)


def test_all_differences_in_shape_and_dtype_are_listed(saved, run):
    config = tiny.get_config()
    config.model.mlp_dim = 48
    config.method.ca_classifier.bank_dtype = "bfloat16"
    layout = state_layout(from_config(config), make_mesh(2, 4))
    with Checkpoints(saved) as checkpoints, pytest.raises(UserError) as error:
        checkpoints.restore(5, layout)
    for part in ("Dense_0", "Dense_1", "slots: checkpoint float32[16, 3, 16], run bfloat16[16, 3, 16]"):
        assert part in str(error.value)


def test_digest_sees_every_bit_and_every_exchange():
    x = jax.random.normal(jax.random.key(0), (5, 7))
    flipped = x.view(jnp.uint32).at[2, 3].set(x.view(jnp.uint32)[2, 3] ^ 1).view(jnp.float32)
    signs = [x.at[0, i].multiply(-1.0) for i in range(7)]
    values = {int(digest(v)) for v in (x, flipped, x[::-1], x.at[0].set(x[1]), *signs)}
    assert int(digest(x)) not in {int(digest(v)) for v in (flipped, *signs)}
    assert len(values) >= 4 + 1
    weights = np.arange(35, dtype=np.uint32) * np.uint32(2 * 2654435761 % 2**32) + np.uint32(1)
    assert int(digest(x)) == int(np.sum(np.asarray(x).view(np.uint32).ravel() * weights, dtype=np.uint32))


def test_the_record_tells_all_and_survives_json(record, state):
    again = Record.from_json(json.loads(json.dumps(dataclasses.asdict(record))))
    assert again == record
    assert again.classes == tiny.NAMES
    assert set(again.versions) >= {"jax", "flax", "orbax-checkpoint", "commit"}
    assert describe(state)[".memory.slots"] == "float32[16, 3, 16]"
