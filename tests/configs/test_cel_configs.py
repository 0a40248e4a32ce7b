"""The configs of CEL, with the arguments that their headers document: built, and the paper's step lowered."""

import importlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from larvseg_jax.assemble import abstract_batch, lower_step, make_method, state_layout
from larvseg_jax.compile_check.report import arrays_by_kind
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.text.vectors import TextClasses
from larvseg_jax.training.optimizer import learning_rate
from larvseg_jax.vocabulary.splits import split_of

NAMES = ("scenes", "voc_animals", "coco_stuff", "voc", "ovs", "zsbaseline")


def module(name):
    return importlib.import_module(f"configs.cel.{name}")


def documented(name):
    found = re.findall(rf"configs/cel/{name}\.py(?::([\w=,.]+))?", module(name).__doc__)
    return [arguments for arguments in dict.fromkeys(found) if "nouns=" not in arguments]


def load(name, arguments=""):
    return from_config(module(name).get_config(*filter(None, [arguments])))


@pytest.fixture
def any_text(monkeypatch):
    """Vectors of any names, in the place of a file's."""
    monkeypatch.setattr(TextClasses, "read", lambda self, names: np.full((len(names), self.width), 0.1, np.float32))


@pytest.mark.parametrize(("name", "arguments"), [(name, a) for name in NAMES for a in documented(name)])
def test_config_builds(name, arguments, any_text):
    run = load(name, arguments)
    if arguments == documented(name)[0]:
        make_method(run, make_mesh(1, 1, jax.devices()[:1]))
    pretrain = "stage=pretrain" in arguments or name == "zsbaseline"
    known = run.catalogue.label_set(run.streams["photos"]).names
    assert (run.method.matching.classes == "paired") is pretrain
    # A novel class has no mask in either stage; in the first one it is not even a class.
    view = run.streams["photos"].view
    assert not {*known} & {*run.vocabulary.novel} - {*view.unmasked}
    assert (run.method.classes.unmatched == "background") is (pretrain or "unmatched=background" in arguments)
    assert bool(run.method.rank.weight) is not (pretrain or "rank=0" in arguments)
    if name not in ("ovs", "zsbaseline") and "unnamed" not in arguments:  # those who compete are those who are learnt
        assert run.catalogue.label_set(run.evals["val"], evaluation=True).names == known
    labels = {"labels=none": "masked", "labels=unnamed": "masked", "labels=pseudo": "photo"}
    if not pretrain and name != "ovs":
        assert view.tags_from == next((value for key, value in labels.items() if key in arguments), "crop")


def test_words_of_captions_are_classes_without_masks(tmp_path, any_text):
    (tmp_path / "nouns.txt").write_text("cat\nwindmill\nwindmill\n\n")  # cat has masks
    run = load("ovs", f"nouns={tmp_path / 'nouns.txt'},tags=nouns.json")
    stream = run.streams["photos"]
    assert stream.classes == (*split_of("coco_stuff_156_15").seen, "windmill")
    assert stream.view.unmasked == ("windmill",)
    assert (stream.view.drop, stream.source.tags_file) == (0.25, "nouns.json")
    assert len(run.catalogue.label_set(run.evals["a150"], evaluation=True)) == 150


def test_the_sizes_of_the_paper(any_text):
    run = load("coco_stuff")
    mesh = make_mesh(1, 1, jax.devices()[:1])
    method = make_method(run, mesh)
    layout = state_layout(run, mesh, method)
    params, memory = layout.params, layout.memory
    assert params["decoder"]["query_features"].shape == (100, 256)
    assert sum(name.startswith("layer_") for name in params["decoder"]) == 9
    assert memory.shape == (176, 512)  # 171 rows, filled up
    assert arrays_by_kind(layout, abstract_batch(run, mesh))["memory"] == 176 * 512 * 4
    masks = jax.eval_shape(lambda p: method._proposed(p, jnp.zeros((1, 640, 640, 3))).masks, params)
    assert masks.shape == (10, 1, 100, 160, 160)
    rate = learning_rate(run.optimizer, run.total_steps)
    assert [float(rate(step)) for step in (0, 44_000, 45_000, 49_000)] == pytest.approx([5e-5, 5e-5, 5e-6, 5e-7])
    assert (run.streams["photos"].batch_size, run.streams["photos"].view.crop_size) == (8, 640)


def test_the_backbone_of_the_paper(any_text):
    run = load("voc", "stage=pretrain,backbone=resnet50")
    mesh = make_mesh(1, 1, jax.devices()[:1])
    method = make_method(run, mesh)
    params = state_layout(run, mesh, method).params
    assert "pyramid" not in params
    assert params["backbone"]["layer3_5"]["conv2"]["kernel"].shape == (3, 3, 256, 256)
    assert (
        sum(x.size for x in jax.tree.leaves(params["backbone"])) == 23_508_032
    )  # of resnet50 in torchvision, but for its fc
    masks = jax.eval_shape(lambda p: method._proposed(p, jnp.zeros((1, 512, 512, 3))).masks, params)
    assert masks.shape == (10, 1, 100, 128, 128)
    assert run.pretrained == "resnet50-0676ba61.pth"
    with pytest.raises(ValueError, match="backbone=resnet18"):
        load("voc", "backbone=resnet18")


@pytest.mark.slow
def test_its_step_lowers_with_the_papers_pixel_decoder(any_text):
    config = module("coco_stuff").get_config("backbone=resnet50")
    config.method.decoder.update(pixels="msdeform", pixel_layers=1, layers=1)  # the others are the same
    config.model.depth = 1
    run, mesh = from_config(config), make_mesh(1, 1, jax.devices()[:1])
    assert lower_step(run, mesh, state_layout(run, mesh)).in_avals
