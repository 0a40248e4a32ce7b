"""A model that is not trained, and pictures of two halves for it."""

import asyncio
import gc

import numpy as np
import pytest
from PIL import Image

from larvseg_jax import Segmenter
from tests.predict.models import write_model

NAMES = ("sky", "cat", "dog", "sofa & <b>")


@pytest.fixture(scope="session")
def segmenter(tmp_path_factory):
    """Not to be taught: a session has copies."""
    file = tmp_path_factory.mktemp("page") / "m.safetensors"
    return Segmenter.load(write_model(file, NAMES, ("dog",), "sky"))


@pytest.fixture(scope="session")
def halves(tmp_path_factory):
    """Left a plain grey, right coloured noise, 240 x 160 pixels."""
    noise = np.random.default_rng(0).integers(0, 256, (20, 15, 3), np.uint8)
    right = np.asarray(Image.fromarray(noise).resize((120, 160), Image.Resampling.NEAREST))
    file = tmp_path_factory.mktemp("upload") / "two halves.png"
    Image.fromarray(np.concatenate([np.full((160, 120, 3), 30, np.uint8), right], 1)).save(file)
    return str(file)


@pytest.fixture(scope="module", autouse=True)
def _no_open_loops():
    """Gradio leaves event loops open, which would warn in whatever test they are collected in."""
    before = set(_loops())
    yield
    for key, loop in _loops().items():
        if key not in before and not loop.is_running():
            loop.close()


def _loops():
    return {id(x): x for x in gc.get_objects() if issubclass(type(x), asyncio.BaseEventLoop)}
