"""What is frozen costs no backward pass, does not move by a bit, and does the same at every step."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from larvseg_jax import assemble
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.devices.sharding import path_name
from larvseg_jax.diverged import take_apart
from larvseg_jax.errors import UserError
from larvseg_jax.models.frozen import frozen_blocks
from larvseg_jax.models.pixels import normalised_batch
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.training.frozen import describe_parameters, keep_frozen
from tests import tiny
from tests.training.test_optimizer import random_batch

BACKBONE = "^backbone/"


def run_of(frozen, **model):
    config = tiny.get_config()
    config.optimizer.frozen = frozen
    config.model.update(model)
    return from_config(config)


def one_device():
    return make_mesh(1, 1, jax.devices()[:1])


def moved(frozen, steps=2):
    """{path: whether its bytes changed} after a few steps of noise."""
    run, mesh = run_of(frozen), one_device()
    state = assemble.fresh_state(run, mesh)
    # A zero with a sign is the number that adding an update of 0 would change.
    backbone = jax.tree.map(lambda x: jnp.where(x == 0, -x, x), state.params["backbone"])
    state = state.replace(params={**state.params, "backbone": backbone})
    before = jax.device_get(state.params)
    step = assemble.seeded(run, mesh, assemble.lower_step(run, mesh, state).compile())
    for _ in range(steps):
        state, _ = step(state, random_batch(run, mesh))
    pairs = zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(jax.device_get(state.params)), strict=True)
    return {path_name(path): old.tobytes() != new.tobytes() for (path, old), new in pairs}


@pytest.mark.slow
def test_what_is_frozen_keeps_its_bytes():
    changed = moved(common.frozen_but_last(2, 1))
    still = {name for name, has in changed.items() if not has}
    below = [name for name in changed if re.match(r"backbone/(cls|stem|Transformer/(posembed|encoderblock_0))", name)]
    assert still - {"head/beta"} == set(below)


def test_an_update_of_zero_changes_no_bit_of_what_is_frozen():
    before = {"backbone": np.array([-0.0, 1.0], np.float32), "head": np.array([1.0], np.float32)}
    after = {name: value + np.float32(0.0) for name, value in before.items()}
    assert after["backbone"].tobytes() != before["backbone"].tobytes()
    kept = keep_frozen("^backbone", before, after | {"head": np.array([2.0], np.float32)})
    assert kept["backbone"].tobytes() == before["backbone"].tobytes()
    assert kept["head"] == 2


@pytest.mark.slow
def test_frozen_blocks_drop_no_paths_and_the_others_do():
    def losses(frozen):
        run, mesh = run_of(frozen, drop_path=0.9), one_device()
        method, batch = assemble.make_method(run, mesh), random_batch(run, mesh)
        batch = {name: normalised_batch(arrays) for name, arrays in batch.items()}
        state = assemble.fresh_state(run, mesh, method)
        loss = jax.jit(method.loss)
        return {float(loss(state.params, state.memory, batch, jax.random.key(i))[0]) for i in range(4)}

    assert len(losses(BACKBONE)) == 1
    assert len(losses(common.frozen_but_last(2, 0))) == 1
    assert len(losses(common.frozen_but_last(2, 1))) > 1
    assert len(losses("stem/|head/")) > 1


@pytest.mark.parametrize(
    ("frozen", "blocks"),
    [
        ("", 0),
        (BACKBONE, 3),
        (common.frozen_but_last(3, 0), 3),
        (common.frozen_but_last(3, 1), 2),
        (common.frozen_but_last(3, 3), 0),
        ("encoderblock_", 0),  # the stem below them moves
        ("^backbone/(?!Transformer/encoderblock_1/)", 1),
        ("^backbone/(?!Transformer/encoderblock_2/.*query/bias)", 2),
    ],
)
def test_how_many_blocks_are_frozen_from_below(frozen, blocks):
    assert (
        frozen_blocks(ViTConfig(width=8, depth=3, num_heads=2, mlp_dim=8, patch_size=4, image_size=8), frozen) == blocks
    )


@pytest.mark.parametrize(("k", "moves"), [(0, False), (1, True), (3, True)])
def test_the_final_norm_moves_with_the_last_block(k, moves):
    norm = "backbone/Transformer/encoder_norm/scale"
    assert (re.search(common.frozen_but_last(3, k), norm) is None) == moves


def test_block_10_is_not_taken_for_block_1():
    vit = ViTConfig(width=8, depth=12, num_heads=2, mlp_dim=8, patch_size=4, image_size=8)
    assert [frozen_blocks(vit, common.frozen_but_last(12, k)) for k in (0, 1, 2, 10, 11, 12)] == [12, 11, 10, 2, 1, 0]
    with pytest.raises(ValueError, match="use 0 to 12"):
        common.frozen_but_last(12, 13)


@pytest.mark.parametrize(
    ("frozen", "close"),
    [
        ("^bakbone/", "'backbone'"),
        ("Transformer/encoderblok_1/", "backbone/Transformer/encoderblock_1"),
        ("class_embedding_table", "head/class_embeddings"),
        ("^qqq$", "'backbone' or 'head'"),
    ],
)
def test_an_expression_that_finds_nothing_is_refused_with_paths_like_it(frozen, close):
    with pytest.raises(UserError, match="finds no parameter") as error:
        assemble.state_layout(run_of(frozen), one_device())
    assert close in str(error.value)
    assert repr(frozen) in str(error.value)


def test_an_expression_that_finds_everything_is_refused():
    with pytest.raises(UserError, match="'head|back' finds every parameter: leave some that learn"):
        assemble.state_layout(run_of("head|back"), one_device())


def test_the_start_says_how_many_parameters_move():
    params = {"head": np.zeros((3, 4)), "backbone": {"a": np.zeros(1000), "b": np.zeros((20, 10))}}
    assert describe_parameters("", params) == "1,212 parameters"
    assert describe_parameters("back", params) == "1,212 parameters, 12 of which move and 1,200 are frozen"


@pytest.mark.slow
def test_a_step_taken_apart_has_the_norms_of_what_moves(tmp_path, one_device):
    config = tiny.get_config()
    config.data_root = str(tiny.write_data(tmp_path).parent)
    config.optimizer.frozen = common.frozen_but_last(2, 1)
    run = from_config(config)
    mesh = assemble.mesh_of(run)
    method, streams = assemble.make_method(run, mesh), assemble.open_streams(run)
    state = assemble.fresh_state(run, mesh, method)
    norms = take_apart(run, mesh, method, streams, state).gradient_norms
    backbone = {name for name in norms if name.startswith("backbone/")}
    assert backbone == {"backbone/Transformer/encoderblock_1", "backbone/Transformer/encoder_norm"}
    assert "head/proj_patch" in norms
    assert all(math.isfinite(norm) for norm in norms.values())
