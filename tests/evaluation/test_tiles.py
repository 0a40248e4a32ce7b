"""The cuts of an axis into tiles, and what a search with them takes."""

import jax
import numpy as np
import pytest

from larvseg_jax.errors import UserError
from larvseg_jax.evaluation import sliding_window
from larvseg_jax.evaluation.search_memory import plan_memory
from larvseg_jax.evaluation.tiles import axis_tiles
from tests.evaluation.test_top_classes import GEOMETRIES, matrices


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize("most_corners", [2, 4])
def test_tiles_cover_the_axis_and_corners_bound_it(geometry, most_corners):
    rng = np.random.default_rng(9)
    for matrix in matrices(*geometry):
        tiles = axis_tiles(matrix, most_corners, 20)
        assert (tiles.first[0], tiles.last[-1]) == (0, len(matrix) - 1)
        np.testing.assert_array_equal(tiles.first[1:], tiles.last[:-1] + 1)
        values = rng.normal(size=(matrix.shape[1], 50))
        for first, last, sources, weights, corners in zip(*tiles, strict=True):
            of_tile = matrix[first : last + 1] @ values
            np.testing.assert_allclose((weights @ values[sources])[: last - first + 1], of_tile, atol=1e-6)
            at_corners = corners @ values[sources]
            assert (of_tile <= at_corners.max(0) + 1e-5).all()
            assert len(at_corners) <= most_corners


def test_a_smaller_budget_takes_fewer_bands_at_a_time(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    rows = columns = axis_tiles(sliding_window.stitch_matrix(512, 512, 512, 32, 512))
    budgets = [mebibytes << 20 for mebibytes in (400, 300, 200, 60)]
    plans = [plan_memory(rows, columns, 32, 21_841, 5, budget) for budget in budgets]
    assert [plan.bands for plan in plans] == [35, 18, 9, 3]
    assert all(plan.bytes <= budget for plan, budget in zip(plans, budgets, strict=True))


def test_too_small_a_budget_is_refused():
    a, b = matrices(*GEOMETRIES["as it is"])
    rows, columns = axis_tiles(a), axis_tiles(b)
    with pytest.raises(UserError, match="need 0.0.* GiB, but the budget is 0.00 GiB"):
        plan_memory(rows, columns, 6, 400, 2, 1000)
