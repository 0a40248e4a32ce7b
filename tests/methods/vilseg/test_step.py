"""The loss of a batch: by hand, on several devices, with rows that only fill up; and what is kept of it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.views import MaskView
from larvseg_jax.devices.mesh import batch_sharding
from larvseg_jax.errors import UserError
from larvseg_jax.methods.method import Method, MethodConfig
from larvseg_jax.methods.vilseg.network import Network
from larvseg_jax.models.clip import pooled
from tests.methods.vilseg.setting import BATCH, TINY, VIEW, batch_of, config_of, method_of

KEY = jax.random.key(1)


def state_of(method):
    return method.init(jax.random.key(0))


def losses(method, params, memory, batch):
    return jax.jit(method.loss)(params, memory, {"captions": batch}, KEY)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_it_is_a_method():
    assert isinstance(config_of(), MethodConfig)
    assert isinstance(method_of(), Method)


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_the_loss_by_hand(pool):
    """In NumPy, from what the towers say of each picture alone."""
    method = method_of(encoder=dict(pool=pool), vision=dict(dim=10, target="centered"))
    (params, memory), batch = state_of(method), batch_of()
    memory = {"center": jnp.linspace(-1, 1, 10)}
    total, (metrics, seen) = losses(method, params, memory, batch)

    def images(x):
        return method.network.apply({"params": params}, x, method=Network.images)

    def head(x, name):
        return np.asarray(x, np.float64) @ np.asarray(params[name]["kernel"]) + np.asarray(params[name]["bias"])

    whole = images(batch["image"])
    vectors = np.asarray(pooled(whole, pool), np.float64)
    target = softmax((head(vectors, "view_head") - np.asarray(memory["center"])) / 0.04)
    terms = []
    for view in range(3):
        local = head(np.asarray(pooled(images(batch["locals"][:, view]), pool)), "view_head") / 0.1
        terms.append(-(target * np.log(softmax(local))).sum(-1).mean())
    assert metrics["captions/L_vision"] == pytest.approx(np.mean(terms), rel=1e-4)
    texts = np.asarray(method.network.apply({"params": params}, batch["tokens"], method=Network.texts), np.float64)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (vectors, texts)]
    cross = -np.log(np.diagonal(softmax(unit[0] @ unit[1].T / 0.07))).mean()
    assert metrics["captions/L_cross"] == pytest.approx(cross, rel=1e-4)
    changed = np.array(images(batch["recoloured"]).patches)
    for i in range(BATCH):
        changed[i] = changed[i][:, ::-1] if batch["flipped"][i] else changed[i]
    before, after = (softmax(head(x, "cluster_head")).reshape(-1, 4) for x in (np.asarray(whole.patches), changed))
    joint = before.T @ after / len(before)
    information = (joint * np.log(joint / joint.sum(1)[:, None] / joint.sum(0)[None])).sum()
    assert metrics["captions/L_cluster"] == pytest.approx(-information, rel=1e-4)
    assert metrics["captions/information"] == pytest.approx(information / np.log(4), rel=1e-4)
    assert total == pytest.approx(np.mean(terms) + cross - information, rel=1e-4)
    expected = 0.9 * np.asarray(memory["center"]) + 0.1 * head(vectors, "view_head").mean(0)
    np.testing.assert_allclose(method.remember(memory, params, seen)["center"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("over", ["batch", "picture"])
def test_any_number_of_devices_gives_one_loss_and_gradient(over):
    sections = dict(cross=dict(symmetric=True), vision=dict(target="ema_teacher"), cluster=dict(num=4, over=over))
    expected = None
    for devices in (1, 2, 4, 8):
        method = method_of(devices, **sections)
        params, memory = state_of(method)
        sharding = batch_sharding(method.task.mesh)
        batch = {name: jax.device_put(value, sharding) for name, value in batch_of().items()}
        with jax.set_mesh(method.task.mesh):
            both = jax.jit(jax.value_and_grad(method.loss, has_aux=True))
            (loss, (_, seen)), gradient = both(params, memory, {"captions": batch}, KEY)
        found = jax.tree.map(np.asarray, (loss, seen, gradient))
        expected = expected or found
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-6), found, expected)


def test_rows_that_fill_up_count_nowhere():
    method = method_of()
    params, memory = state_of(method)
    batch = batch_of()
    more = {name: jnp.concatenate([value, batch_of(1)[name][:4]]) for name, value in batch.items()}
    more["valid"] = jnp.arange(BATCH + 4) < BATCH
    alone, (metrics, seen) = losses(method, params, memory, batch)
    padded, (more_metrics, more_seen) = losses(method, params, memory, more)
    assert padded == pytest.approx(float(alone), rel=1e-5)
    for name, value in metrics.items():
        assert more_metrics[name] == pytest.approx(float(value), rel=1e-4, abs=1e-6), name
    np.testing.assert_allclose(more_seen["center"], seen["center"], rtol=1e-5, atol=1e-7)


def test_the_targets_know_no_length_of_unit_vectors():
    """The projection doubled: the same outcomes where Phi_a sees unit vectors, others where not."""
    for normalise in (True, False):
        method = method_of(vision=dict(normalise=normalise), cluster=dict(weight=0.0))
        params, memory = state_of(method)
        doubled = {**params, "image_projection": 2 * params["image_projection"]}
        (_, (one, _)), (_, (two, _)) = (losses(method, p, memory, batch_of()) for p in (params, doubled))
        assert (
            float(one["captions/L_vision"]) == pytest.approx(float(two["captions/L_vision"]), rel=1e-4)
        ) is normalise


def gradient_of(method, memory=None):
    params, fresh = state_of(method)
    return jax.jit(jax.grad(lambda p: method.loss(p, memory or fresh, {"captions": batch_of()}, KEY)[0]))(params)


def moved(gradient, part):
    return any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient[part]))


@pytest.mark.parametrize("stop", [False, True])
def test_the_clusters_move_the_encoder_unless_stopped(stop):
    off = dict(weight=0.0)
    gradient = gradient_of(method_of(vision=off, cross=off, cluster=dict(stop_gradient=stop)))
    assert moved(gradient, "cluster_head")
    assert moved(gradient, "backbone") is not stop
    assert not moved(gradient, "view_head")
    assert not moved(gradient, "text")


def test_a_loss_of_weight_0_is_left_out_and_needs_nothing():
    view = dataclasses.replace(VIEW, local_views=0, recoloured=False)
    bare = method_of(view=view, vision=dict(weight=0.0), cluster=dict(weight=0.0))
    params, memory = state_of(bare)
    assert memory == {}
    batch = {name: batch_of()[name] for name in ("image", "tokens", "valid")}
    total, (metrics, _) = losses(bare, params, memory, batch)
    assert metrics.keys() == {"scale", "captions/L_cross", "captions/retrieval_at_1"}
    assert total == metrics["captions/L_cross"]


def test_a_fixed_temperature_gets_no_gradient():
    for kind in ("learned", "fixed"):
        assert moved(gradient_of(method_of(cross=dict(temperature=kind))), "logit_scale") is (kind == "learned")


def test_the_teacher_follows_and_gets_no_gradient():
    method = method_of(vision=dict(target="ema_teacher", teacher_momentum=0.75))
    params, memory = state_of(method)
    assert memory["teacher"].keys() == {"backbone", "image_projection", "view_head"}
    _, (_, seen) = losses(method, params, memory, batch_of())
    moved_params = jax.tree.map(lambda x: x + 1, params)
    after = method.remember(memory, moved_params, seen)["teacher"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b + 0.25, rtol=1e-5, atol=1e-5), after, memory["teacher"])


def test_several_heads_are_averaged_and_the_best_is_remembered():
    method = method_of(cluster=dict(heads=3))
    params, memory = state_of(method)
    _, (metrics, seen) = losses(method, params, memory, batch_of())
    assert metrics["captions/L_cluster"] == pytest.approx(float(seen["head_losses"].mean() * 100), rel=1e-4)
    assert method.scorer(method.task.streams["captions"].label_set).reads_memory


@pytest.mark.parametrize(
    ("change", "sections", "words"),
    [
        (dict(local_views=0), {}, "streams.captions.local_views"),
        (dict(recoloured=False), {}, "streams.captions.recoloured=True"),
        ({}, dict(tokenizer=dict(TINY["tokenizer"], context=9)), "streams.captions.text differs"),
    ],
)
def test_a_stream_without_what_a_loss_needs(change, sections, words):
    with pytest.raises(UserError, match=words):
        method_of(view=dataclasses.replace(VIEW, **change), **sections)


def test_only_captions_teach_it():
    with pytest.raises(UserError, match="learns from captions"):
        config_of().loss_options(MaskView)


def test_flops_are_the_sum_of_their_parts_and_shared_by_devices():
    method = method_of()
    parts = method.flops()
    assert {"qkv", "mlp", "view_head", "cluster_head", "text_tower", "pairs"} <= parts.keys()
    assert sum(method.flops(data=2).values()) == pytest.approx(sum(parts.values()) / 2, rel=0.05)


def test_a_collapse_is_named():
    method = method_of(vision=dict(dim=100), cluster=dict(num=5))
    fine = {"captions/target_entropy": 1.0, "captions/mean_target_entropy": 4.0, "captions/clusters_in_use": 5.0}
    assert method.symptoms(fine) == []
    for change, words in (
        ({"captions/target_entropy": np.log(100)}, "say nothing"),
        ({"captions/mean_target_entropy": 0.001, "captions/target_entropy": 0.001}, "same outcome for all"),
        ({"captions/clusters_in_use": 1.0}, "in one of 5 clusters"),
        ({"captions/clusters_in_a_picture": 1.1}, "the patches of a picture are in one cluster"),
    ):
        (line,) = method.symptoms(fine | change)
        assert words in line
    assert "cluster.over='picture'" in line
    (line,) = method_of(cluster=dict(num=5, over="picture")).symptoms(fine | change)
    assert "train longer" in line
