"""Bytes of arrays and programs, counted by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from larvseg_jax.devices.memory import ArrayBytes, ProgramMemory, array_bytes, bytes_by_part, program_memory
from larvseg_jax.devices.mesh import make_mesh


def array(shape, dtype, *axes):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(make_mesh(4, 2), P(*axes)))


def test_bytes_on_one_device_and_in_all():
    assert array_bytes(array((8, 6), "float32", "data", "model")) == ArrayBytes(on_one=2 * 3 * 4, in_all=8 * 6 * 4)
    assert array_bytes(array((8, 6), "bfloat16", None, "model")) == ArrayBytes(on_one=8 * 3 * 2, in_all=8 * 6 * 2)
    assert array_bytes(array((), "int32")) == ArrayBytes(on_one=4, in_all=4)


def test_parts_are_summed_and_the_first_pattern_counts():
    tree = {
        "params": {"head": {"gamma": array((), "float32"), "table": array((8,), "float32", "model")}},
        "bank": [array((4,), "int8", "data"), array((2,), "int32")],
    }
    parts = {"^params/head/table$": "table", "^params/": "rest", "^(bank|memory)/": "memory bank", "^none/": "none"}
    assert bytes_by_part(tree, parts) == {
        "table": ArrayBytes(16, 32),
        "rest": ArrayBytes(4, 4),
        "memory bank": ArrayBytes(1 + 8, 4 + 8),
        "none": ArrayBytes(0, 0),
    }
    assert list(bytes_by_part(tree, parts)) == ["table", "rest", "memory bank", "none"]
    with pytest.raises(ValueError, match="bank/0 belongs to none"):
        bytes_by_part(tree, {"^params/": "params"})


def test_memory_of_a_program():
    x = jnp.zeros((100, 10))
    compiled = jax.jit(lambda x, y: (x + 1.0, y[:5] * 2.0), donate_argnums=0).lower(x, jnp.zeros(1000)).compile()
    memory = program_memory(compiled)
    assert memory.arguments == 4000 + 4000
    assert memory.output >= 4000 + 20  # and the pointers to the two
    assert memory.shared == 4000
    assert memory.new_output == memory.output - 4000
    assert memory.total == memory.arguments + memory.new_output + memory.temporary + memory.code


def test_what_has_to_fit_counts_shared_memory_once():
    assert ProgramMemory(arguments=100, output=90, shared=80, temporary=1000, code=5).total == 1115


def test_a_backend_that_does_not_say(monkeypatch):
    monkeypatch.setattr(jax.stages.Compiled, "memory_analysis", lambda self: None)
    assert program_memory(jax.jit(jnp.sin).lower(1.0).compile()) is None
