"""The configs of CLIP, with the arguments that their headers document: built, and a step lowered on abstract shapes."""

import dataclasses

import jax
import pytest

from configs.clip import dense, small
from larvseg_jax.assemble import lower_step, make_method, state_layout
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.methods.method import Linear


@pytest.mark.parametrize("arguments", ["voc_20", "coco_stuff_171,features=value_block", "pascal_context_59,size=L/14"])
def test_dense_clip_has_the_sizes_of_the_published_models(arguments):
    run = from_config(dense.get_config(arguments))
    classes = run.catalogue.label_set(run.evals["val"], evaluation=True).names
    assert str(len(classes)) == arguments.partition(",")[0].rpartition("_")[2]
    assert ("wall-concrete" in classes) == ("coco" in arguments)
    large = "L/14" in arguments
    mesh = make_mesh(1, 1, jax.devices()[:1])
    params, _ = jax.eval_shape(make_method(run, mesh).init, jax.random.key(0))
    count = sum(x.size for x in jax.tree.leaves(params["backbone"])) + params["image_projection"].size
    assert count == (303_966_208 if large else 86_192_640)  # of the image tower, with its projection
    assert sum(x.size for x in jax.tree.leaves(params)) == (427_616_513 if large else 149_620_737)


def test_small_clip_builds_a_step():
    config = small.get_config()
    config.streams.captions.batch_size = 8
    run = from_config(config)
    run = dataclasses.replace(run, data_threads=0)
    mesh = make_mesh(2, 1, jax.devices()[:2])
    method = make_method(run, mesh)
    assert isinstance(method.scorer(run.vocabulary.label_set()), Linear)
    lower_step(run, mesh, state_layout(run, mesh, method), method)
