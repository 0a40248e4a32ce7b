"""ResNets of torchvision and of Hugging Face hold one network; what does not fit is told in a line."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import save_file

from larvseg_jax.errors import UserError
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.weights.pretrained import load_pretrained, read_weights
from tests.weights.pth_files import write_pth
from tests.weights.resnet_arrays import hugging_face_arrays, torchvision_arrays

ARRAYS = torchvision_arrays()


def read(path, arrays=ARRAYS):
    return read_weights(write_pth(path, arrays), ViTConfig())


def fresh(path, without=()):
    """Parameters of a network that has this backbone, and a head."""
    flat = {name: jnp.zeros(shape) for name, shape in read(path).shapes.items() if name not in without}
    return traverse_util.unflatten_dict(flat | {"head/kernel": jnp.ones((2, 3))}, sep="/")


def test_two_spellings_are_one_network(tmp_path):
    of_torchvision = read(tmp_path / "resnet.pth").arrays
    under = {f"module.backbone.{name}": value for name, value in ARRAYS.items()}
    save_file(hugging_face_arrays(ARRAYS), tmp_path / "model.safetensors")
    for others in (read(tmp_path / "under.pth", under), read_weights(tmp_path / "model.safetensors", ViTConfig())):
        assert others.arrays.keys() == of_torchvision.keys()
        for name, value in others.arrays.items():
            np.testing.assert_array_equal(value, of_torchvision[name])


def test_a_batch_norm_is_what_it_amounts_to(tmp_path):
    arrays = read(tmp_path / "resnet.pth").arrays
    x = np.linspace(-2, 2, 8)
    for ours, theirs in (
        ("norm1", "bn1"),
        ("layer2_1/norm3", "layer2.1.bn3"),
        ("layer4_0/shortcut_norm", "layer4.0.downsample.1"),
    ):
        weight, bias, mean, variance = (
            ARRAYS[f"{theirs}.{kind}"][:, None] for kind in ("weight", "bias", "running_mean", "running_var")
        )
        expected = (x - mean) / np.sqrt(variance + 1e-5) * weight + bias
        scale, shift = (arrays[f"backbone/{ours}/{kind}"][:, None] for kind in ("scale", "bias"))
        np.testing.assert_allclose(x * scale + shift, expected, atol=1e-6)
    kernel = arrays["backbone/layer3_0/conv2/kernel"]
    np.testing.assert_array_equal(kernel[0, 2, 5, 3], ARRAYS["layer3.0.conv2.weight"][3, 5, 0, 2])


def test_it_is_loaded_and_reported(tmp_path):
    path = tmp_path / "resnet.pth"
    params, report = load_pretrained(path, fresh(path), ViTConfig(), [])
    np.testing.assert_array_equal(
        params["backbone"]["layer1_0"]["shortcut"]["kernel"][0, 0], ARRAYS["layer1.0.downsample.0.weight"][:, :, 0, 0].T
    )
    assert report.size == "ResNet-17"  # 3 * 5 bottlenecks + 2
    assert report.missing == ("head/kernel",)
    assert set(report.extra) == {name for name in ARRAYS if name.startswith("fc.") or name.endswith("tracked")}
    assert report.pixels == "normalised as those that the weights were trained with ('imagenet')"


def test_what_does_not_fit_is_told(tmp_path):
    path = tmp_path / "resnet.pth"
    deeper = fresh(path)
    deeper["backbone"]["layer1_1"] = {"conv1": {"kernel": jnp.zeros((1, 1, 8, 2))}}
    with pytest.raises(UserError, match=r"it holds a ResNet as torchvision names it; it is a ResNet-17, the model a "):
        load_pretrained(path, deeper, ViTConfig(), [])
    with pytest.raises(UserError, match=r"missing: .*backbone/layer1_1/conv1/kernel"):
        load_pretrained(path, deeper, ViTConfig(), [])
    less = fresh(path)
    broken = {name: value for name, value in ARRAYS.items() if name != "layer2.1.bn2.running_mean"}
    write_pth(path, broken)
    with pytest.raises(UserError, match=r"missing: .*layer2_1/norm2/scale; unknown: .*layer2_1/norm2/running_var"):
        load_pretrained(path, less, ViTConfig(), [])


def test_a_spelling_may_not_say_it_twice(tmp_path):
    twice = ARRAYS | {"embedder.embedder.convolution.weight": ARRAYS["conv1.weight"]}
    with pytest.raises(UserError, match="holds backbone/conv1/kernel twice"):
        read(tmp_path / "resnet.pth", twice)
