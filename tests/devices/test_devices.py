"""The same run on one and on eight devices: same losses, same gradients, same bank."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from larvseg_jax.assemble import batch_placer, fresh_state, host_batches, lower_step, open_streams, seeded, state_layout
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.errors import UserError
from larvseg_jax.models.cosine_head import unit
from tests import tiny

STEPS = 7  # every tagged picture is in every batch: a multiple of the slots would bring every cursor back to 0


def run_steps(config, mesh):
    """Losses of every step, the gradient of the first one, and the final state on the host."""
    run = from_config(config)
    batches = host_batches(run, open_streams(run), 0)
    place, state = batch_placer(run, mesh), fresh_state(run, mesh)
    step = seeded(run, mesh, lower_step(run, mesh, state).compile())
    losses, gradients = [], {}
    for _ in range(STEPS):
        state, metrics = step(state, place(next(batches)))
        losses.append(jax.device_get(metrics))
        # Adam's first moment after the first step is a tenth of the gradient.
        gradients = gradients or jax.device_get(state.opt_state[0].mu)
    return losses, gradients, jax.device_get(state)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = tiny.get_config()
    config.data_root = str(tiny.write_data(tmp_path_factory.mktemp("data")).parent)
    # Where classes are split, the other two streams have a column for every row, and this one fetches its rows.
    config.streams.few = config.streams.tags.copy_and_resolve_references()
    config.batch_padding = "pad"
    config.streams.few.update(classes=("grey", "background"), weight=0.3)
    for stream in config.streams.values():
        stream.batch_size = 5
    return config


def sharded(config, shape, shard_backbone):
    config = config.copy_and_resolve_references()
    config.mesh.update(data=shape[0], model=shape[1], shard_backbone=shard_backbone)
    return config


@pytest.fixture(scope="module")
def on_one_device(config):
    return run_steps(config, make_mesh(1, 1, jax.devices()[:1]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "shard_backbone"),
    [((4, 2), True), ((1, 8), False), ((8, 1), False)],
)
def test_any_mesh_gives_the_losses_gradients_and_bank_of_one_device(config, on_one_device, shape, shard_backbone):
    """Five pictures: on (4, 2) and (8, 1) three masked ones are added, and leave no trace."""
    assert_same_run(on_one_device, run_steps(sharded(config, shape, shard_backbone), make_mesh(*shape)))


def assert_same_run(expected, found):
    for step, (one, many) in enumerate(zip(expected[0], found[0], strict=True)):
        for name, value in one.items():
            np.testing.assert_allclose(many[name], value, rtol=1e-4, atol=1e-6, err_msg=f"{name} at step {step}")
    paths = jax.tree_util.tree_leaves_with_path(expected[1])
    for (path, one), many in zip(paths, jax.tree.leaves(found[1]), strict=True):
        largest = max(np.abs(one).max(), 1e-3)
        np.testing.assert_allclose(many, one, atol=2e-5 * largest, err_msg=jax.tree_util.keystr(path))
    one, many = expected[2].memory, found[2].memory
    np.testing.assert_array_equal(many.cursor, one.cursor)
    np.testing.assert_array_equal(many.wraps, one.wraps)
    assert one.cursor.max() >= 1
    assert one.wraps.max() >= 1  # the banks were warm: the attention was in these losses
    np.testing.assert_allclose(many.slots, one.slots, atol=2e-4)


def test_a_batch_that_devices_do_not_divide_is_refused_unless_it_may_be_padded(config):
    config = config.copy_and_resolve_references()
    config.batch_padding = "refuse"
    run, mesh = from_config(config), make_mesh(8, 1)
    with pytest.raises(UserError, match="batch_size=5 cannot be split over 8 devices: use 8"):
        lower_step(run, mesh, state_layout(run, mesh))


def test_mesh_that_does_not_use_all_devices_is_refused():
    with pytest.raises(UserError, match=r"mesh.data=3 x mesh.model=1 does not make 8 devices.*\(4, 2\)"):
        make_mesh(3, 1)


def test_class_arrays_are_split_over_the_model_axis(config):
    mesh = make_mesh(2, 4)
    state = fresh_state(from_config(config), mesh)
    by_class = {
        "embeddings": state.params["head"]["class_embeddings"],
        "momentum": state.opt_state[0].mu["head"]["class_embeddings"],
        "slots": state.memory.slots,
        "class_mean": state.memory.class_mean,
    }
    for name, array in by_class.items():
        assert array.shape[0] == 16, name  # 5 classes filled up
        assert array.addressable_shards[0].data.shape[0] == 4, name
    assert state.params["head"]["proj_patch"].sharding.is_fully_replicated
    assert jnp.allclose(jnp.linalg.norm(unit(by_class["embeddings"]), axis=-1), 1.0)
