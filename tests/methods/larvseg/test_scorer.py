"""LarvSeg's scores as products of features and class vectors, exact with names that count several times."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.views import MaskView
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.methods.larvseg import Config
from larvseg_jax.methods.larvseg.options import MaskLoss
from larvseg_jax.methods.method import Linear, StreamTask, Task
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.vocabulary import Vocabulary

VOCABULARY = Vocabulary(tuple("abcdefgh"), base=(), novel=())
VIT = ViTConfig(width=16, depth=1, num_heads=2, mlp_dim=32, patch_size=4, image_size=16)


@pytest.mark.slow
def test_scores_are_products_of_features_and_vectors():
    stream = StreamTask(VOCABULARY.label_set(), MaskView(crop_size=16), MaskLoss(), 2)
    method = Config(gamma_init=2.0).make(Task(16, VIT, {"masks": stream}, make_mesh(1, 1, jax.devices()[:1])))
    params, memory = method.init(jax.random.key(0))
    params["head"]["beta"] = jnp.float32(0.4)
    label_set = VOCABULARY.label_set("hbbdbf")
    images = jax.random.normal(jax.random.key(1), (3, 16, 20, 3))
    scorer = method.scorer(label_set)
    assert isinstance(scorer, Linear)

    # Standardised over the six columns that the names stand for.
    patches = np.asarray(method.embed(params, images), np.float64)
    embeddings = np.asarray(params["head"]["class_embeddings"], np.float64)[[7, 1, 1, 3, 1, 5]]
    vectors = embeddings @ np.asarray(params["head"]["proj_classes"], np.float64)
    scores = patches @ (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).T
    centred = scores - scores.mean(-1, keepdims=True)
    expected = (2.0 * centred / np.sqrt(scores.var(-1, keepdims=True) + 1e-5) + 0.4)[..., [0, 1, 3, 5]]

    np.testing.assert_allclose(np.linalg.norm(patches, axis=-1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(scorer.scores(params, memory, images), expected, atol=1e-4)
    classes = scorer.vectors(params, memory)
    features = scorer.features(params, memory, classes, images)
    np.testing.assert_allclose(features @ classes.vectors.T + classes.offset, expected, atol=1e-4)
    np.testing.assert_array_equal(classes.multiplicity, [1, 3, 1, 1])
