"""Cached features of all pictures of a caption's row: the losses of ViL-Seg are those of the pictures themselves."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from configs.vilseg import parts
from data_pipelines.features import view_rng
from data_pipelines.streams import stack
from larvseg_jax import assemble
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.errors import UserError
from larvseg_jax.models.pixels import normalised_batch
from tests import tiny
from tests.features.made import made


def config_of(folder, features=""):
    """A frozen backbone of two blocks; captions say the colours of a picture's boxes."""
    names = tiny.NAMES
    if not (folder / "tiny").exists():
        data = tiny.write_data(folder)
        labels = json.loads((data / "splits.json").read_text())["image_labels"]
        captions = {f"{stem}.png": [f"a {' and a '.join(names[i] for i in of)} box"] for stem, of in labels.items()}
        (data / "captions.json").write_text(json.dumps(captions))
    config = parts.experiment("tiny_captions")
    config.data_root, config.features, config.total_steps = str(folder), str(features), 4
    config.vocabulary.update(classes=names, base=tiny.BASE, novel=tiny.NOVEL)
    config.model.update(tiny.get_config().model)
    config.model.drop_path = 0.0
    config.optimizer.frozen = "^backbone/"
    config.method.update(width=12)
    config.method.tokenizer.update(kind="words", words=("a", "and", "box", *names), context=10)
    config.method.text.update(width=8, depth=1, num_heads=2, mlp_dim=16)
    config.method.vision.update(dim=6)
    config.method.cluster.update(num=4)
    source = common.source(folder="tiny", split="train")
    parts.captions(config, source, batch_size=8, crop_size=16, local_size=8)
    config.streams.captions.local_views = 2
    config.evals.val.update(source=common.source(folder="tiny", split="val"), scale=(64, 16), window=16, stride=16)
    return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("captions")


@pytest.fixture(scope="module")
def features(folder):
    return made(folder / "features", config_of(folder), views=1, dtype="float32")


def mesh():
    return make_mesh(1, 1, jax.devices()[:1])


@pytest.mark.slow
def test_losses_are_those_of_the_pictures(folder, features):
    run = from_config(config_of(folder, features))
    plain = dataclasses.replace(run, features=None)
    stream = assemble.open_streams(plain)["captions"]
    batch = next(assemble.host_batches(run, assemble.open_streams(run), 0))
    found = batch["captions"]
    assert found["locals_patches"].shape == (8, 2, 2, 2, 16)
    number = {stream.source[i]["id"]: i for i in range(len(stream.source))}
    rows = [stream.row(number[photo], view_rng(run.seed, "captions", number[photo], 0)) for photo in found["id"]]
    pictures = {"captions": stack(rows)}
    losses = []
    for of, host in ((run, batch), (plain, pictures)):
        method = assemble.make_method(of, mesh())
        params, memory = method.init(jax.random.key(0))
        arrays = normalised_batch({k: jnp.asarray(x) for k, x in host["captions"].items() if k != "id"})
        losses.append(method.loss(params, memory, {"captions": arrays}, jax.random.key(1)))
    (loss, (metrics, seen)), (expected, (of_pictures, seen_of_pictures)) = losses
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    for name, value in of_pictures.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(seen["center"], seen_of_pictures["center"], atol=1e-6)


def test_the_class_token_is_not_stored(folder, features):
    config = config_of(folder, features)
    config.method.encoder.pool = "cls"
    with pytest.raises(UserError, match="method.encoder.pool is 'cls', the class token, and features have none"):
        assemble.make_method(from_config(config), mesh())
