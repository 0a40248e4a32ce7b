"""What the TPU's own compiler makes of parts of a step that once cost more than they do."""

import importlib.util
import os
import re
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

needs_tpu_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="no TPU compiler here: pip install 'jax[tpu]'"
)

BEGINNING = """
import functools, jax, jax.numpy as jnp
from larvseg_jax.compile_check.target import open_target, target_mesh
from larvseg_jax.methods.cel import points
from larvseg_jax.methods.larvseg import memory_bank
jax.config.update("jax_platforms", "cpu")
mesh, _ = target_mesh(open_target("v5e:2x2"), 4, 1)
def array(*shape, dtype="float32", by=None):
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(by))
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
"""
WRITES = """
bank = jax.tree.map(lambda x: array(*x.shape, dtype=x.dtype),
                    jax.eval_shape(functools.partial(memory_bank.MemoryBank.empty, 4096, 20, 256, "float16")))
with jax.set_mesh(mesh):
    write = jax.jit(memory_bank.write, donate_argnums=0)
    compiled = write.lower(bank, array(8, dtype="int32"), array(8, 256), array(8, dtype="bool")).compile()
print(compiled.as_text())
"""
TAG_LOSS = """
from larvseg_jax.assemble import compiler_options
from larvseg_jax.methods.larvseg.losses import pair_losses, pooled_classifier
from larvseg_jax.models.cosine_head import ClassTable, unit
mesh, _ = target_mesh(open_target("tpu7x:2x2x1"), 8, 1)
def loss(patches, vectors, pooling, tags):
    table = ClassTable(vectors, jnp.ones(len(vectors)), jnp.ones(()), jnp.zeros(()))
    pooled = pooled_classifier(unit(patches), table)(pooling)
    return pair_losses(pooled, tags, table.multiplicity, tags >= 0)
patches, pooling = array(8, 400, 768, by="data"), array(8, 8, 400, by="data")
vectors, tags = array(21_845, 768), array(8, 8, dtype="int32", by="data")
with jax.set_mesh(mesh):
    lowered = jax.jit(jax.grad(loss, (0, 1))).lower(patches, vectors, pooling, tags)
compiled = lowered.compile({"exec_time_optimization_effort": -1.0, **compiler_options(mesh)})
print([tuple(gradient.shape) for gradient in compiled.out_info])
"""
READS = """
def moved(function, *shapes):
    return jax.jit(function).lower(*(array(*shape) for shape in shapes)).compile().cost_analysis()["bytes accessed"]
print(moved(points.sample_features, (1, 160, 160, 256), (1, 4096, 2)))
print(moved(points.sample_maps, (1, 400, 160, 160), (1, 4096, 2)))
"""


def printed(program):
    environment = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    words = [sys.executable, "-c", BEGINNING + program]
    done = subprocess.run(words, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@needs_tpu_compiler
@pytest.mark.slow
def test_the_memory_bank_is_written_where_it_lies():
    """Its slots, 42 MB, are neither copied nor laid out anew."""
    program = printed(WRITES)
    assert re.search(r"f16\[4096,20,256\]\S* (fusion|scatter)\(", program)
    assert not re.search(r"f16\[4096,20,256\]\S* (copy|transpose|copy-start)\(", program)


@needs_tpu_compiler
@pytest.mark.slow
def test_image_level_losses_of_all_synsets_compile_for_tpu7x():
    """Without the option XLA takes 38 MB of vector memory where it allows itself 32."""
    assert printed(TAG_LOSS).strip() == "[(8, 400, 768), (21845, 768)]"


@needs_tpu_compiler
@pytest.mark.slow
def test_features_at_points_cost_less_than_the_masks_made_of_them():
    """256 features, and 400 of the 1,000 masks that ten outputs of 100 queries are."""
    features, masks = map(float, printed(READS).split())
    assert features < masks / 10
