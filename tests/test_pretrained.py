"""AugReg files: what is taken, what is resized, and the one line that says why a file does not fit."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from larvseg_jax.errors import UserError
from larvseg_jax.models.vit import VisionTransformer, ViTConfig
from larvseg_jax.pretrained import load_augreg

CONFIG = ViTConfig(width=8, depth=2, num_heads=2, mlp_dim=12, patch_size=4, image_size=12)
POSITIONS = "Transformer/posembed_input/pos_embedding"


def backbone_params(config=CONFIG):
    images = jnp.zeros((1, 12, 12, 3))
    return jax.eval_shape(VisionTransformer(config).init, jax.random.key(0), images)["params"]


def file_arrays(side=3):
    """Arrays as they stand in a file whose pictures have side x side patches."""
    rng = np.random.default_rng(0)
    shapes = {name: x.shape for name, x in traverse_util.flatten_dict(backbone_params(), sep="/").items()}
    shapes |= {POSITIONS: (1, 1 + side**2, 8), "head/kernel": (8, 5), "head/bias": (5,)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def save(tmp_path):
    def save(arrays):
        np.savez(tmp_path / "weights.npz", **arrays)
        return tmp_path / "weights.npz"

    return save


def flat(params):
    return traverse_util.flatten_dict(params, sep="/")


@pytest.mark.parametrize("prefix", ["", "opt/target/"])
def test_every_array_arrives_under_its_name(save, prefix):
    arrays = file_arrays()
    path = save({prefix + name: value for name, value in arrays.items()})
    params, report = load_augreg(path, backbone_params(), CONFIG.stored_grid)
    assert jax.tree.structure(params) == jax.tree.structure(backbone_params())
    for name, value in flat(params).items():
        np.testing.assert_array_equal(value, arrays[name])
    assert report.ignored == ("head/bias", "head/kernel")
    assert set(report.loaded) == flat(backbone_params()).keys()
    assert report.resized == ""
    assert str(report) == f"{len(report.loaded)} arrays (float32) from weights.npz; left out: head/bias, head/kernel"


@pytest.mark.parametrize("side", [2, 5])
def test_the_position_embedding_is_resized_and_its_class_entry_kept(save, side):
    arrays = file_arrays(side)
    params, report = load_augreg(save(arrays), backbone_params(), CONFIG.stored_grid)
    ours, theirs = flat(params)[POSITIONS], arrays[POSITIONS]
    np.testing.assert_array_equal(ours[0, 0], theirs[0, 0])
    assert report.resized == f"{side}x{side} -> 3x3"

    def kernel(t, a=-0.75):
        t = abs(t)
        if t <= 1:
            return (a + 2) * t**3 - (a + 3) * t**2 + 1
        return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0

    grid = theirs[0, 1:].reshape(side, side, 8)
    centres = [(i + 0.5) * side / 3 - 0.5 for i in range(3)]
    for i, v in enumerate(centres):
        for j, u in enumerate(centres):
            expected = sum(
                kernel(v - y) * kernel(u - x) * grid[min(max(y, 0), side - 1), min(max(x, 0), side - 1)]
                for y in range(math.floor(v) - 1, math.floor(v) + 3)
                for x in range(math.floor(u) - 1, math.floor(u) + 3)
            )
            np.testing.assert_allclose(ours[0, 1 + 3 * i + j], expected, atol=1e-5)


def test_half_precision_files_become_float32(save):
    arrays = {name: value.astype(np.float16) for name, value in file_arrays().items()}
    params, report = load_augreg(save(arrays), backbone_params(), CONFIG.stored_grid)
    assert {x.dtype for x in jax.tree.leaves(params)} == {np.dtype("float32")}
    assert report.dtypes == ("float16",)


def refusal(path, config=CONFIG):
    with pytest.raises(UserError) as caught:
        load_augreg(path, backbone_params(config), config.stored_grid)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_all_differences_are_told_at_once(save):
    arrays = file_arrays()
    del arrays["cls"]
    arrays["embedding/bias"] = np.zeros(9, np.float32)
    arrays["Transformer/encoderblock_2/LayerNorm_0/bias"] = np.zeros(8, np.float32)
    arrays["Transformer/encoder_norm/bias"] = np.zeros(8, np.int32)
    message = refusal(save(arrays))
    assert "cls is missing" in message
    assert "embedding/bias has shape (9,) and not (8,)" in message
    assert "Transformer/encoderblock_2/LayerNorm_0/bias is not known" in message
    assert "Transformer/encoder_norm/bias is int32" in message


def test_a_position_embedding_of_no_square_grid_is_refused(save):
    arrays = file_arrays()
    arrays[POSITIONS] = np.zeros((1, 8, 8), np.float32)
    assert f"{POSITIONS} has shape (1, 8, 8) and not (1, 10, 8)" in refusal(save(arrays))


def test_weights_of_another_size_or_stem_are_refused(save):
    path = save(file_arrays())
    assert "has shape" in refusal(path, dataclasses.replace(CONFIG, width=16))
    message = refusal(path, dataclasses.replace(CONFIG, stem="conv"))
    assert "stem/conv_0/kernel is missing" in message
    assert "embedding/kernel is not known" in message


@pytest.mark.parametrize(
    "bad", ["absent", "folder", "text", "empty", "one array", "pickled", "cut off", "changed byte"]
)
def test_files_that_cannot_be_read_are_named(tmp_path, save, bad):
    path = tmp_path / "bad.npz"
    if bad == "folder":
        path.mkdir()
    elif bad == "text":
        path.write_text("no weights here")
    elif bad == "empty":
        path.touch()
    elif bad == "one array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif bad == "pickled":
        np.savez(path, cls=np.array([{"a": 1}], dtype=object))
    elif bad == "cut off":
        path.write_bytes(save(file_arrays()).read_bytes()[:-100])
    elif bad == "changed byte":
        content = bytearray(save(file_arrays()).read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
    assert "cannot read" in refusal(path)


@pytest.mark.parametrize("name", ["vit_npz_s0", "vit_npz_s1"])
def test_goldens_with_two_resizings_in_a_row(shared, name):
    from tests.parity.golden import Golden
    from tests.parity.table import Report
    from tests.parity.vit_cases import check_vit_npz

    report = Report()
    report.start("vit_npz", name)
    with jax.default_matmul_precision("highest"):
        check_vit_npz(report, Golden.load(shared / "goldens" / "given" / f"{name}_io.npz"))
    assert report.failures == []
