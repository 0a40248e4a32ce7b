"""Our side of benchmarks/vs_pytorch.py runs, on a small model: PyTorch's side needs an environment of its own."""

import numpy as np
import pytest

from benchmarks._our_step import TAGS, Ours, inputs
from configs import common
from larvseg_jax.config import from_config


@pytest.mark.slow
def test_our_side_of_the_comparison_runs(monkeypatch):
    def small(**stream):
        return dict(class_list="ade20k_150", batch_size=2, crop_size=128, **stream)

    config = common.get_config()
    config.class_lists.lists = ("ade20k_150",)
    config.streams.masks = common.mask_stream(**small())
    config.streams.tags = common.tag_stream(**small(max_labels=12))
    config.model.update(width=16, depth=1, num_heads=2, mlp_dim=16, image_size=128)
    run = from_config(config)
    given = inputs(run)
    ours = Ours(run, given)
    assert ours.tag_features().shape == given["features"].shape
    for losses in (ours.mask_head(), *map(ours.tag_head, TAGS), ours.step()):
        assert np.isfinite(losses).all()
