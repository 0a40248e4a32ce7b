"""The decoder's mask rule and what it lets gradients through; its numbers are in the goldens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from larvseg_jax.models.mask_decoder.decoder import MaskedDecoder, attended

MODEL = MaskedDecoder(width=8, num_heads=2, mlp_dim=16, layers=2, queries=4, mask_width=5)


def test_a_query_looks_where_its_mask_is_and_everywhere_if_that_is_nowhere():
    features = jnp.asarray([[[1.0, 0], [0, 1], [-1, -1]]])
    vectors = jnp.asarray([[[1.0, -1], [-1, 0], [-1, -1], [-1, -0.5]]])
    expected = [[True, False, True], [False, True, True], [False, False, True], [False, False, True]]
    np.testing.assert_array_equal(attended(vectors, features)[0], expected)
    nowhere = attended(-jnp.ones((1, 2, 2)), jnp.ones((1, 3, 2)))
    assert nowhere.all()


@pytest.fixture(scope="module")
def decoded():
    """Gradients of the last states, and outputs."""
    rng = np.random.default_rng(0)
    scales = tuple(jnp.asarray(rng.normal(size=(2, s, s, 8)), jnp.float32) for s in (1, 2, 4))
    mask_features = jnp.asarray(rng.normal(size=(2, 8, 8, 5)), jnp.float32)
    shapes = jax.eval_shape(MODEL.init, jax.random.key(0), scales, mask_features)["params"]
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), shapes)

    @jax.jit
    def states_and_gradient(params, mask_features):
        def total(params, mask_features):
            out = MODEL.apply({"params": params}, scales, mask_features)
            return jnp.sum(jnp.sin(out.states[-1])), out

        (_, out), gradient = jax.value_and_grad(total, (0, 1), has_aux=True)(params, mask_features)
        return out, gradient

    return params, *states_and_gradient(params, mask_features)


def test_masks_say_where_to_look_without_a_gradient(decoded):
    _, _, (of_params, of_features) = decoded
    assert not np.any(of_features)
    assert not any(np.any(x) for x in jax.tree.leaves(of_params["mask_mlp"]))
    assert np.any(of_params["layer_0"]["cross_attention"]["value"]["kernel"])


def test_outputs_before_the_first_layer_and_after_each(decoded):
    params, out, _ = decoded
    assert out.states.shape == (3, 2, 4, 8)
    assert out.masks.shape == (3, 2, 4, 8, 8)
    x = np.asarray(params["query_features"])
    normed = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    normed = normed * np.asarray(params["norm"]["scale"]) + np.asarray(params["norm"]["bias"])
    np.testing.assert_allclose(out.states[0], np.broadcast_to(normed, (2, 4, 8)), atol=1e-5)


def test_fresh_parameters_are_drawn_as_mask2formers():
    model = MaskedDecoder(64, 2, 256, 1, 100, 32)
    maps = tuple(jnp.zeros((1, 1, 1, 64)) for _ in range(3))
    fresh = jax.jit(model.init)(jax.random.key(1), maps, jnp.zeros((1, 2, 2, 32)))["params"]
    largest = {
        ("layer_0", "cross_attention", "query", "kernel"): (6 / (4 * 64)) ** 0.5,
        ("layer_0", "self_attention", "out", "kernel"): (6 / (2 * 64)) ** 0.5,
        ("layer_0", "mlp", "Dense_1", "kernel"): (6 / (64 + 256)) ** 0.5,
        ("layer_0", "mlp", "Dense_1", "bias"): 256**-0.5,
        ("mask_mlp", "Dense_2", "kernel"): 64**-0.5,
        ("mask_mlp", "Dense_2", "bias"): 64**-0.5,
    }
    for path, bound in largest.items():
        drawn = fresh
        for name in path:
            drawn = drawn[name]
        assert bound * 0.8 < np.abs(drawn).max() <= bound, path
    for name in ("query_features", "query_positions"):
        assert np.std(fresh[name]) == pytest.approx(1, rel=0.05)
    assert not np.any(fresh["layer_0"]["cross_attention"]["key"]["bias"])
