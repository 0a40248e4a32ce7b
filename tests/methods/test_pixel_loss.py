"""Cross entropy on the loss grid, made some rows at a time, against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from larvseg_jax.methods import pixel_loss

SIZES = {
    "enlarged": ((5, 4), (13, 9)),
    "as it is": ((6, 3), (6, 3)),
    "reduced": ((9, 7), (4, 5)),
    "one row": ((1, 2), (7, 8)),
}


def bilinear(n_in, n_out):
    """One sample after the other: between the middles of its two neighbours, at the edges the outermost."""
    matrix = np.zeros((n_out, n_in))
    for i in range(n_out):
        place = np.clip((i + 0.5) * n_in / n_out - 0.5, 0, n_in - 1)
        left = int(place)
        matrix[i, left] += 1 - (place - left)
        matrix[i, min(left + 1, n_in - 1)] += place - left
    return matrix


def expected(logits, multiplicity, label, valid, mean_over):
    """Loss and gradient, pixel after pixel."""
    rows, columns = (bilinear(a, b) for a, b in zip(logits.shape[1:3], label.shape[1:], strict=True))
    upsampled = np.einsum("Hh,Ww,bhwn->bHWn", rows, columns, logits)
    total, pixels, to_upsampled = 0.0, 0, np.zeros_like(upsampled)
    for place in np.ndindex(*label.shape):
        if not valid[place[0]]:
            continue
        pixels += mean_over == "all" or label[place] >= 0
        if label[place] < 0:
            continue
        powers = multiplicity * np.exp(upsampled[place])
        total += np.log(powers.sum()) - upsampled[place][label[place]]
        to_upsampled[place] = powers / powers.sum()
        to_upsampled[place][label[place]] -= 1
    return total / pixels, np.einsum("Hh,Ww,bHWn->bhwn", rows, columns, to_upsampled) / pixels


@pytest.mark.parametrize("together", [1, 700, 1 << 21])
@pytest.mark.parametrize("mean_over", ["all", "valid"])
@pytest.mark.parametrize("size", SIZES)
def test_rows_made_some_at_a_time_have_the_loss_and_gradient_of_all(size, mean_over, together, monkeypatch):
    monkeypatch.setattr(pixel_loss, "_TOGETHER", together)
    grid, loss_grid = SIZES[size]
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, *grid, 6)).astype(np.float32)
    label = rng.integers(-1, 5, (3, *loss_grid)).astype(np.int32)
    multiplicity, valid = np.array([1, 2, 1, 0.5, 3, 0], np.float32), np.array([True, False, True])

    def loss(logits):
        return pixel_loss.pixel_cross_entropy(logits, jnp.asarray(multiplicity), label, jnp.asarray(valid), mean_over)

    label = jnp.asarray(label)
    wanted, gradient = expected(logits.astype(np.float64), multiplicity, np.asarray(label), valid, mean_over)
    np.testing.assert_allclose(jax.jit(loss)(jnp.asarray(logits)), wanted, rtol=1e-5)
    found, to_logits = jax.jit(jax.value_and_grad(lambda x: 2 * loss(x)))(jnp.asarray(logits))
    np.testing.assert_allclose(found, 2 * wanted, rtol=1e-5)
    np.testing.assert_allclose(to_logits, 2 * gradient, atol=1e-6)


def test_no_map_of_the_loss_grid_is_kept_on_a_cpu():
    logits, label = jax.ShapeDtypeStruct((2, 32, 32, 150), "float32"), jax.ShapeDtypeStruct((2, 256, 256), "int32")
    arguments = logits, jax.ShapeDtypeStruct((150,), "float32"), label, jax.ShapeDtypeStruct((2,), "bool")
    compiled = jax.jit(jax.value_and_grad(pixel_loss.pixel_cross_entropy)).lower(*arguments).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2 * 256 * 256 * 150 * 4 / 1.5
