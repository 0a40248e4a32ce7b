"""Runs with other seeds are the same compiled programs, and their random numbers are those of their seeds."""

import jax
import numpy as np
import pytest

from larvseg_jax.assemble import fresh_state, lower_step, state_layout
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.training.state import seed_array
from tests import tiny


def run_of(seed: int):
    config = tiny.get_config()
    config.seed = seed
    return from_config(config)


@pytest.mark.parametrize("seed", [0, 7, 2**31 + 5, -3])
def test_random_numbers_are_those_of_the_seed(seed):
    keys = (jax.random.key_data(jax.random.key(given)) for given in (seed, seed_array(seed)))
    np.testing.assert_array_equal(*keys)


@pytest.mark.slow
def test_the_step_is_the_same_program_for_all_seeds():
    mesh = make_mesh(1, 1, jax.devices()[:1])
    programs = {lower_step(run, mesh, state_layout(run, mesh)).as_text() for run in (run_of(0), run_of(1))}
    assert len(programs) == 1
    assert "threefry" in programs.pop()  # which draws something


def test_so_is_the_one_that_makes_the_first_state(monkeypatch):
    mesh, jit, programs = make_mesh(1, 1, jax.devices()[:1]), jax.jit, []

    def recorded(function, **options):
        jitted = jit(function, **options)

        def call(*arguments):
            programs.append(jitted.lower(*arguments).as_text())
            return jitted(*arguments)

        return call

    monkeypatch.setattr("larvseg_jax.training.state.jax.jit", recorded)
    states = [fresh_state(run_of(seed), mesh) for seed in (0, 1)]
    monkeypatch.undo()
    first, second = programs
    assert first == second
    gaps = [
        float(np.abs(np.asarray(x) - np.asarray(y)).max()) for x, y in zip(*map(jax.tree.leaves, states), strict=True)
    ]
    assert max(gaps) > 0.01
