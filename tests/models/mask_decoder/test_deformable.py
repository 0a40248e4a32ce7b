"""How deformable attention begins; the numbers of a trained one are in the goldens."""

import jax
import jax.numpy as jnp
import numpy as np

from larvseg_jax.models.mask_decoder.deformable import DeformableAttention, first_offsets
from larvseg_jax.models.mask_decoder.msdeform import centres

SIDES = ((1, 2), (3, 4))


def test_each_head_begins_with_a_row_of_points_in_a_direction_of_its_own():
    directions = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
    expected = [[[(x * i, y * i) for i in (1, 2, 3)]] * 2 for x, y in directions]
    np.testing.assert_allclose(first_offsets(8, 2, 3), expected, atol=1e-6)


def test_places_are_the_centres_of_the_elements():
    expected = [[0.25, 0.5], [0.75, 0.5]]
    expected += [[x, y] for y in (1 / 6, 3 / 6, 5 / 6) for x in (1 / 8, 3 / 8, 5 / 8, 7 / 8)]
    np.testing.assert_allclose(centres(SIDES), expected, atol=1e-6)


def test_a_fresh_one_averages_elements_at_whole_steps_from_the_place():
    """Four heads (right, down, left, up) with two points on a map of 3 x 4: all fall on elements or beyond."""
    rng = np.random.default_rng(0)
    height, width, heads, points = 3, 4, 4, 2
    x = rng.normal(size=(1, height * width, 8)).astype(np.float32)
    given = jnp.asarray(x), centres(((height, width),)), jnp.asarray(x), ((height, width),)
    found, params = DeformableAttention(heads, points).init_with_output(jax.random.key(0), *given)
    params = jax.tree.map(np.asarray, params["params"])
    value = (x[0] @ params["values"]["kernel"]).reshape(height, width, heads, 2)
    mixed = np.zeros_like(value)
    for row, column, head, i in np.ndindex(height, width, heads, points):
        down, right = [(0, 1), (1, 0), (0, -1), (-1, 0)][head]
        r, c = row + down * (i + 1), column + right * (i + 1)
        if 0 <= r < height and 0 <= c < width:
            mixed[row, column, head] += value[r, c, head] / points
    expected = mixed.reshape(-1, 8) @ params["mixed"]["kernel"]
    np.testing.assert_allclose(found[0], expected, atol=1e-5)
