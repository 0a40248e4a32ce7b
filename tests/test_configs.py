"""Every config, with every documented argument, is loaded, built and lowered on abstract shapes."""

import importlib

import jax
import pytest

from larvseg_jax.config import from_config
from larvseg_jax.sharding import make_mesh
from larvseg_jax.train_loop import lower_step
from larvseg_jax.train_state import state_layout

ALL = [(name, method) for name in ("quickstart", "voc_animals", "clothing") for method in ("larvseg", "baseline")]


@pytest.mark.parametrize(("name", "method"), ALL)
def test_config_builds_and_its_step_lowers(name, method):
    run = from_config(importlib.import_module(f"configs.{name}").get_config(method))
    assert run.attends == (method == "larvseg")
    assert not set(run.vocabulary.base) & set(run.vocabulary.novel)
    masks = [s for s in run.streams.values() if s.kind == "masks"]
    # Novel classes are never learnt from masks: the mask streams do not know them.
    assert all(not set(s.classes) & set(run.vocabulary.novel) and s.classes for s in masks)
    mesh = make_mesh(1, 1, jax.devices()[:1])
    assert "stablehlo" in lower_step(run, mesh, state_layout(run, mesh)).as_text()[:2000]
