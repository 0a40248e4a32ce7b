"""The maps of a ResNet against the recorded ones, its sizes, and that its norms are frozen."""

import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from larvseg_jax.devices.sharding import path_name
from larvseg_jax.models.resnet import Bottleneck, ResNet, ResNetConfig
from tests.parity.__main__ import main


def test_recorded_maps(shared, tmp_path, capsys):
    path = shared / "goldens-vl" / "given" / "resnet_tiny.npz"
    if not path.is_file():
        pytest.skip(f"no goldens of vision and language here ({path} is no file)")
    shutil.copy(path, tmp_path)
    assert main([str(tmp_path)]) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("depths", "count"),
    [((3, 4, 6, 3), 25_557_032), ((3, 4, 23, 3), 44_549_160)],  # torchvision's, with a classifier of 1,000
)
def test_parameters_and_maps_are_those_of_the_paper(depths, count):
    model = ResNet(ResNetConfig(depths))
    images = jax.ShapeDtypeStruct((2, 65, 96, 3), "float32")
    maps, variables = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), images)
    assert sum(math.prod(x.shape) for x in jax.tree.leaves(variables)) == count - 2048 * 1000 - 1000
    assert [x.shape for x in maps] == [(2, 17, 24, 256), (2, 9, 12, 512), (2, 5, 6, 1024), (2, 3, 3, 2048)]
    assert model.config.widths == (256, 512, 1024, 2048)


def test_maps_are_float32_whatever_it_computes_in():
    model = ResNet(ResNetConfig((1, 1, 1, 1), stem=4, width=2), "bfloat16")
    maps, variables = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), jnp.zeros((1, 32, 32, 3)))
    assert {x.dtype for x in jax.tree.leaves((maps, variables))} == {jnp.dtype("float32")}


def test_norms_get_no_gradient():
    block = Bottleneck(width=2, stride=2)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 4, 4)), jnp.float32)

    @jax.jit
    def gradient(key):
        params = block.init(key, x)["params"]
        return jax.grad(lambda params: jnp.sum(block.apply({"params": params}, x)))(params)

    moves = {path_name(p): bool(np.any(g)) for p, g in jax.tree_util.tree_leaves_with_path(gradient(jax.random.key(0)))}
    kernels = {f"{name}/kernel" for name in ("conv1", "conv2", "conv3", "shortcut")}
    assert {name for name, moving in moves.items() if moving} == kernels
    assert len(moves) == 12
