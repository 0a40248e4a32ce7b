"""The configs of ViL-Seg, with the arguments that their headers document: built, and their steps lowered."""

import importlib
import re

import jax
import pytest

from configs.vilseg import cc12m
from larvseg_jax.assemble import lower_step, make_method, state_layout
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.training.optimizer import learning_rate
from larvseg_jax.vocabulary.splits import split_of

NAMES = ("cc12m", "scenes", "flickr8k")


def module(name):
    return importlib.import_module(f"configs.vilseg.{name}")


def documented(name):
    return list(dict.fromkeys(re.findall(rf"configs/vilseg/{name}\.py(?::([\w=,]+))?", module(name).__doc__)))


def load(name, arguments=""):
    return from_config(module(name).get_config(arguments))


@pytest.mark.parametrize(("name", "arguments"), [(name, a) for name in NAMES for a in documented(name)])
def test_config_builds(name, arguments):
    run = load(name, arguments)
    make_method(run, make_mesh(1, 1, jax.devices()[:1]))
    assert run.name.startswith(f"vilseg_{name}")
    assert run.streams["captions"].view.local_views == (0 if "vision=false" in arguments else 6)
    within_pictures = name == "scenes" and "paper" not in arguments
    assert run.method.cluster.stop_gradient is ("detached" in arguments or within_pictures)
    assert run.method.cluster.over == ("picture" if within_pictures else "batch")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cc12m", "scenes"])  # that of flickr8k differs in sizes only
def test_its_step_lowers(name):
    config, mesh = module(name).get_config(), make_mesh(1, 1, jax.devices()[:1])
    config.model.depth = config.method.text.depth = 2  # all blocks are alike
    run = from_config(config)
    assert "stablehlo" in lower_step(run, mesh, state_layout(run, mesh)).as_text()[:2000]


def test_the_size_of_the_paper():
    run = load("cc12m")
    mesh = make_mesh(1, 1, jax.devices()[:1])
    params, memory = jax.eval_shape(make_method(run, mesh).init, jax.random.key(0))
    image_tower = sum(x.size for x in jax.tree.leaves(params["backbone"])) + params["image_projection"].size
    assert image_tower == 86_192_640  # Table 2: 86.19M
    assert params["cluster_head"]["kernel"].shape == (512, 20)
    assert params["view_head"]["kernel"].shape == (512, 2048)
    assert memory["center"].shape == (2048,)
    stream = run.streams["captions"]
    assert (stream.batch_size, stream.view.crop_size, stream.view.local_size) == (768, 224, 96)
    rate = learning_rate(run.optimizer, run.total_steps)
    assert [float(rate(step)) for step in (0, 2000, 4000, run.total_steps)] == pytest.approx([0, 2.5e-4, 5e-4, 1e-5])


@pytest.mark.parametrize("split", ["voc_15_5", "pascal_context_55_4", "coco_stuff_156_15"])
def test_all_classes_compete_or_the_unseen_ones_alone(split):
    run, found = from_config(cc12m.get_config(f"on={split}")), split_of(split)
    among, alone = (run.catalogue.label_set(run.evals[name], evaluation=True) for name in ("all", "unseen"))
    assert sorted(among.names) == sorted((*found.seen, *found.unseen))
    assert alone.names == found.unseen
    assert (run.vocabulary.base, run.vocabulary.novel) == (found.seen, found.unseen)
    assert set(among.multiplicity) == {1}  # wall-concrete is a class of its own
    assert run.vocabulary.classes == load("cc12m").vocabulary.classes  # one checkpoint for all of them
