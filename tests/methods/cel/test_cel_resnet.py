"""CEL on a ResNet in the ViT's place: begun from torchvision's file, trained, resumed, evaluated, predicted."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.errors import UserError
from larvseg_jax.evaluate import evaluate_checkpoint
from larvseg_jax.methods.cel.network import Network
from larvseg_jax.methods.method import Task
from larvseg_jax.models.mask_decoder.decoder import MaskedDecoder
from larvseg_jax.models.mask_decoder.msdeform import MsDeformPixelDecoder
from larvseg_jax.models.resnet import ResNet
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.predict.predictor import Predictor
from larvseg_jax.report.metric_log import read_history
from larvseg_jax.train import train
from larvseg_jax.weights.stored_checkpoint import read_checkpoint
from tests.methods.cel.tiny_cel import config_of, experiment, trained_on_one_device, write_data
from tests.weights.pth_files import write_pth
from tests.weights.resnet_arrays import torchvision_arrays

SIZES = dict(depths=(1, 2, 1, 1), stem=4, width=2)
DECODER = dict(queries=6, layers=1, width=16, num_heads=2, mlp_dim=16, mask_width=8, masks_per_patch=4)
VIT = ViTConfig(width=16, depth=1, num_heads=2, mlp_dim=16, patch_size=16, image_size=32)


def test_its_maps_go_to_the_pixel_decoder():
    """The parts, one after the other by hand."""
    config = config_of(
        backbone="resnet", resnet=SIZES, decoder=DECODER | dict(pixels="msdeform", pixel_layers=1, pixel_mlp_dim=16)
    )
    network = Network(VIT, config.decoder, 8, resnet=config.resnet)
    images = jax.random.normal(jax.random.key(0), (2, 64, 32, 3))
    params = network.init(jax.random.key(1), images)["params"]
    assert set(params) == {"backbone", "pixel_decoder", "decoder", "class_branch_0", "background"}
    maps = ResNet(network.resnet).apply({"params": params["backbone"]}, images)
    assert [x.shape[1:3] for x in maps] == [(16, 8), (8, 4), (4, 2), (2, 1)]
    decoded = MsDeformPixelDecoder(16, 2, 16, 1, 8).apply({"params": params["pixel_decoder"]}, tuple(maps))
    proposed = MaskedDecoder(16, 2, 16, 1, 6, 8).apply({"params": params["decoder"]}, *decoded)
    found = network.apply({"params": params}, images)
    np.testing.assert_allclose(found.masks, proposed.masks, atol=1e-5)
    last = network.apply({"params": params}, images, method=Network.patches)
    np.testing.assert_allclose(last, maps.res5, atol=1e-6)


@pytest.mark.parametrize(
    ("sections", "vit", "block", "words"),
    [
        (dict(decoder=dict(masks_per_patch=2)), {}, 0, "masks_per_patch to 4"),
        (dict(decoder=DECODER), dict(pixels="clip"), 0, "model.pixels is clip"),
        (dict(decoder=DECODER), {}, 1, "cached features are of the ViT"),
    ],
)
def test_what_does_not_go_with_it_is_said(sections, vit, block, words):
    mesh = make_mesh(1, 1, jax.devices()[:1])
    backbone = ViTConfig(width=16, depth=1, num_heads=2, mlp_dim=16, patch_size=16, image_size=32, **vit)
    with pytest.raises(UserError, match=words):
        config_of(backbone="resnet", resnet=SIZES, **sections).make(Task(5, backbone, {}, mesh, first_block=block))


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A config that begins with a file as torchvision writes it."""
    root = tmp_path_factory.mktemp("data")
    write_data(root)
    write_pth(root / "resnet50.pth", torchvision_arrays(**SIZES))

    def begun(workdir):
        config = experiment(root, workdir)
        config.evals.val.update(window=32, stride=32, scale=(64, 32))
        config.streams.photos.update(crop_size=32, scale=(64, 32))
        config.model.update(patch_size=16, image_size=32)
        config.method.backbone = "resnet"
        config.method.resnet.update(**SIZES)
        config.method.decoder.update(**DECODER, pixels="msdeform", pixel_layers=1, pixel_mlp_dim=16)
        config.optimizer.weight_decay = 0.5
        config.pretrained = str(root / "resnet50.pth")
        return config

    return begun


@pytest.fixture(scope="module")
def trained(begun, tmp_path_factory):
    return trained_on_one_device(begun(tmp_path_factory.mktemp("run")))


@pytest.mark.slow
def test_the_convolutions_learn_and_the_norms_stay(trained):
    params, arrays = read_checkpoint(trained).params, torchvision_arrays(**SIZES)
    kernel = arrays["layer1.0.conv2.weight"].transpose(2, 3, 1, 0)
    assert not np.array_equal(params["backbone/layer1_0/conv2/kernel"], kernel)
    scale = arrays["bn1.weight"] / np.sqrt(arrays["bn1.running_var"] + 1e-5)
    np.testing.assert_allclose(params["backbone/norm1/scale"], scale, rtol=1e-6)


@pytest.mark.slow
def test_it_is_evaluated_and_predicts(trained, begun, tmp_path):
    (scores,) = (line for line in read_history(trained) if line["kind"] == "eval")
    assert evaluate_checkpoint(trained)["val"].scalars()["aAcc"] == pytest.approx(scores["aAcc"], abs=1e-9)
    picture = from_config(begun(tmp_path)).data_root / "tiny" / "images" / "p19.png"
    image = np.asarray(Image.open(picture).convert("RGB"))
    assert Predictor.load(trained)(image).labels.shape[:2] == image.shape[:2]


@pytest.mark.slow
def test_it_resumes_bit_for_bit(trained, begun, tmp_path, one_device):
    shutil.copytree(trained, tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoints" / "2")
    config = begun(tmp_path / "again")
    config.gallery, config.evals = 0, {}
    train(from_config(config))
    whole, again = (read_checkpoint(folder).params for folder in (trained, tmp_path / "again"))
    jax.tree.map(np.testing.assert_array_equal, whole, again)
    assert jnp.isfinite(jnp.asarray(whole["backbone/conv1/kernel"])).all()
