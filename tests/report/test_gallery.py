"""The photos of a report: whose maps are shown."""

import jax.numpy as jnp
import numpy as np

from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.evaluation.config import EvalConfig
from larvseg_jax.evaluation.evaluator import Evaluator
from larvseg_jax.methods.method import Dense
from larvseg_jax.report.gallery import make_gallery
from larvseg_jax.vocabulary import OTHER, Vocabulary


class Photos:
    """One photo, mostly of what is none of the classes."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        label = np.full((16, 16), 2, np.int32)
        label[0], label[1:3] = 1, 0
        return {"id": "photo", "image": np.zeros((16, 16, 3), np.uint8), "label": label}


def unused(*_):
    raise AssertionError("nothing but the figures is asked for")


class Method:
    init = loss = remember = embed = flops = scorer = unused

    def figures(self, params, memory, label_set, windows, tags):
        return {"attention": jnp.zeros((len(windows), 4, 4, tags.shape[1]))}


def test_other_is_no_class_with_a_map():
    vocabulary = Vocabulary(("cat", "dog", "cow"))
    label_set = vocabulary.with_rivals(vocabulary.label_set(("cat", "dog")), ("cow",))
    config, mesh = EvalConfig(scale=(16, 16), window=16, stride=16), make_mesh(8, 1)
    scorer = Dense(lambda params, memory, images: jnp.zeros((len(images), 4, 4, len(label_set))))
    evaluator = Evaluator(config, Photos(), label_set, vocabulary, (), scorer, mesh)
    prediction = np.zeros((16, 16), np.int32)
    (item,) = make_gallery(Method(), mesh, None, None, evaluator, {0: prediction}, vocabulary)
    assert [caption for caption, _ in item.figures] == ["attention: cat", "attention: dog"]
    assert OTHER in label_set.names
