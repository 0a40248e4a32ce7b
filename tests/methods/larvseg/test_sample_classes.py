"""Class sampling: which classes take part, and that a sample of all of them changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.views import MaskView
from larvseg_jax.assemble import batch_placer, fresh_state, host_batches, lower_step, open_streams, seeded
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.devices.sharding import ShardingRules
from larvseg_jax.methods.larvseg import Config
from larvseg_jax.methods.larvseg.losses import image_label_losses, pooled_classifier
from larvseg_jax.methods.larvseg.method import LarvSeg
from larvseg_jax.methods.larvseg.options import MaskLoss
from larvseg_jax.methods.larvseg.streams import sample_classes
from larvseg_jax.methods.method import StreamTask, Task
from larvseg_jax.methods.pixel_loss import pixel_cross_entropy
from larvseg_jax.models.cosine_head import ClassTable, standardised_logits
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.training.optimizer import OptimizerConfig, make_optimizer
from larvseg_jax.training.state import initial_state
from larvseg_jax.training.step import make_train_step
from larvseg_jax.vocabulary import Vocabulary
from tests import tiny

N, D = 12, 8


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(N, D)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    multiplicity = np.array([1, 2, 1, 1, 3, 1, 1, 1, 1, 1, 0, 0], np.float32)  # the last two are padding
    return ClassTable(jnp.asarray(vectors), jnp.asarray(multiplicity), jnp.float32(1.5), jnp.float32(0.2))


def taking_part(table, labels, count, seed):
    sampled = sample_classes(table, jnp.asarray(labels, jnp.int32), count, jax.random.key(seed))
    kept = np.asarray(sampled.multiplicity)
    np.testing.assert_array_equal(kept[kept > 0], np.asarray(table.multiplicity)[kept > 0])
    return set(np.flatnonzero(kept).tolist())


def test_the_sample_holds_its_number_and_all_present_classes(table):
    seen = set()
    for seed in range(40):
        classes = taking_part(table, [[3, -1], [7, 3]], 4, seed)
        assert {3, 7} <= classes <= set(range(10))
        assert 4 <= len(classes) <= 6
        assert len(taking_part(table, [[-1, -1]], 4, seed)) == 4
        seen |= classes
    assert seen == set(range(10))  # every class is drawn some day, padding never


def test_draws_are_uniform(table):
    draws = 400
    times = np.zeros(N)
    for seed in range(draws):
        times[list(taking_part(table, [[-1]], 5, seed))] += 1
    assert times[10:].sum() == 0
    # Binomial with p = 1/2: five standard deviations.
    np.testing.assert_allclose(times[:10], draws / 2, atol=5 * np.sqrt(draws / 4))


@pytest.mark.slow
def test_logits_and_losses_are_those_of_a_table_without_the_rest(table):
    labels = np.array([[3, 7], [4, -1]], np.int32)
    sampled = sample_classes(table, jnp.asarray(labels), 3, jax.random.key(1))
    kept = np.flatnonzero(np.asarray(sampled.multiplicity))
    small = ClassTable(table.vectors[kept], table.multiplicity[kept], table.gamma, table.beta)
    column = {old: new for new, old in enumerate(kept.tolist())} | {-1: -1}
    renumbered = jnp.asarray(np.vectorize(column.get)(labels), jnp.int32)
    rng = np.random.default_rng(2)
    patches = rng.normal(size=(2, 4, D)).astype(np.float32)
    patches /= np.linalg.norm(patches, axis=-1, keepdims=True)
    pooling = jnp.full((2, 1, 4), 0.25)

    def loss(t, tags):
        return image_label_losses(pooled_classifier(jnp.asarray(patches), t)(pooling), tags, t.multiplicity)

    np.testing.assert_allclose(loss(sampled, jnp.asarray(labels)), loss(small, renumbered), rtol=2e-5, atol=1e-6)

    grid = jnp.asarray(patches.reshape(2, 2, 2, D))
    pixels = rng.choice([-1, 3, 4, 7], size=(2, 4, 4)).astype(np.int32)

    def seg(t, label):
        logits = standardised_logits(grid, t)
        return pixel_cross_entropy(logits, t.multiplicity, label, jnp.ones(2, bool))

    few = jnp.asarray(np.vectorize(column.get)(pixels), jnp.int32)
    np.testing.assert_allclose(seg(sampled, jnp.asarray(pixels)), seg(small, few), rtol=2e-5)


def test_streams_and_steps_draw_their_classes_independently():
    """Only one stream has labels at a time, all of class 0: the embeddings that move are those that took part."""
    classes, count, steps = 16, 5, 12
    vocabulary = Vocabulary(tuple("abcdefghijklmnop"), base=(), novel=())
    stream = StreamTask(vocabulary.label_set(), MaskView(crop_size=8), MaskLoss(sample_classes=count), 1)
    vit = ViTConfig(width=8, depth=0, num_heads=1, mlp_dim=8, patch_size=4, image_size=8)
    mesh = make_mesh(1, 1, jax.devices()[:1])
    method = LarvSeg(Config(), Task(classes, vit, {"left": stream, "right": stream}, mesh))
    optimizer = make_optimizer(OptimizerConfig(), steps)
    start = initial_state(method, optimizer, seed=0, mesh=mesh, rules=ShardingRules((), False))
    step = jax.jit(make_train_step(method, optimizer, seed=0))
    image = jax.random.normal(jax.random.key(1), (1, 8, 8, 3))

    def drawn(number, name):
        batch = {
            one: {"image": image, "label": jnp.full((1, 4, 4), 0 if one == name else -1), "valid": jnp.ones(1, bool)}
            for one in ("left", "right")
        }
        after, _ = step(start.replace(step=jnp.int32(number)), batch)
        tables = (state.params["head"]["class_embeddings"] for state in (start, after))
        moved = np.flatnonzero(np.any(np.not_equal(*tables), axis=1)).tolist()
        assert 0 in moved
        assert count <= len(moved) <= count + 1
        return set(moved) - {0}

    left, right = ([drawn(number, name) for number in range(steps)] for name in ("left", "right"))
    everything = [frozenset(sample) for sample in left + right]
    assert len(set(everything)) == len(everything)  # one of 3003 or more samples each
    neighbours = {"same step": (left, right)}
    for one, other in ((left, left), (left, right), (right, left), (right, right)):
        neighbours[f"next step {len(neighbours)}"] = one[:-1], other[1:]
    for what, pairs in neighbours.items():
        common = np.mean([len(a & b) for a, b in zip(*pairs, strict=True)])
        # Of 15 classes each is in both samples with probability (5/16)^2; five standard deviations of the mean.
        p = (count / classes) ** 2
        np.testing.assert_allclose(common, 15 * p, atol=5 * np.sqrt(15 * p * (1 - p) / steps), err_msg=what)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "same"), [(4, True), (1, False)])
def test_a_sample_of_all_classes_is_the_full_form(tmp_path, count, same):
    """Whole steps: the tag stream knows 5 classes, the mask stream 3."""
    tiny.write_data(tmp_path)
    config = tiny.get_config()
    config.data_root = str(tmp_path)
    run = from_config(config)
    config.streams.masks.sample_classes, config.streams.tags.sample_classes = count, count + 1
    sampling = from_config(config)
    mesh = make_mesh(1, 1, jax.devices()[:1])
    state = fresh_state(run, mesh)
    host = next(host_batches(run, open_streams(run), 0))
    # Labels of class 1 alone: classes that are present always take part.
    host["tags"]["tags"] = np.where(np.arange(4)[None] == 0, np.int32(1), np.int32(-1)).repeat(8, axis=0)
    host["masks"]["label"] = np.where(host["masks"]["label"] == 1, np.int32(1), np.int32(-1))
    batch = batch_placer(run, mesh)(host)
    losses = []
    for one in (run, sampling):
        step = seeded(one, mesh, lower_step(one, mesh, state).compile())
        losses.append(float(step(fresh_state(run, mesh), batch)[1]["loss"]))
    assert (abs(losses[0] - losses[1]) < 1e-6) == same
