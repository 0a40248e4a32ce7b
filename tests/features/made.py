"""A tiny run whose lower blocks are frozen, and features of it."""

import jax
import pytest

from configs import common
from larvseg_jax import assemble
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.features.features import make_features
from tests import tiny

DEPTH = 3


def config_of(data, k=1, features=""):
    """Of three blocks the last k learn, with drop path; the bank attends from the first step on."""
    config = tiny.get_config()
    config.data_root, config.features = str(data), str(features)
    config.model.update(depth=DEPTH, drop_path=0.5)
    config.method.ca_classifier.warmup = 0
    config.optimizer.frozen = common.frozen_but_last(DEPTH, k)
    return config


def made(folder, config, **options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assemble, "mesh_of", lambda run: make_mesh(1, 1, jax.devices()[:1]))
        make_features(from_config(config), folder, **options)
    return folder
