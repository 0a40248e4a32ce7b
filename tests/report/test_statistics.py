"""Means, standard errors and paired differences, against sums by hand."""

import math

import pytest

from larvseg_jax.report.statistics import estimate, paired_difference


def by_hand(values):
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, math.sqrt(variance / len(values))


@pytest.mark.parametrize("values", [[0.1, 0.4], [0.105, 0.1036, 0.09], [3.0] * 4, [1e-3, -2.0, 7.5, 0.25, 0.0]])
def test_mean_and_standard_error(values):
    found = estimate(values)
    assert found.mean == pytest.approx(by_hand(values)[0], rel=1e-12, abs=1e-15)
    assert found.error == pytest.approx(by_hand(values)[1], rel=1e-12, abs=1e-15)
    assert found.seeds == len(values)


def test_a_known_example():
    # 2, 4, 4, 4, 5, 5, 7, 9: mean 5, sum of squares 32, so s^2 = 32 / 7.
    found = estimate([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0])
    assert found.mean == 5
    assert found.error == pytest.approx(math.sqrt(32 / 7 / 8))


def test_one_value_has_no_error_and_none_no_mean():
    found = estimate([0.25])
    assert found.mean == 0.25
    assert math.isnan(found.error)
    assert estimate([]) is None


def test_differences_are_taken_seed_by_seed():
    # What a seed does to both, here 0 to 90, is in the error of each mean and not in that of the difference.
    reference = {0: 0.0, 1: 30.0, 2: 90.0, 5: 1000.0}
    values = {2: 91.5, 0: 1.0, 1: 31.1, 8: -1000.0}
    found = paired_difference(values, reference)
    assert (found.mean, found.error) == pytest.approx(by_hand([1.0, 31.1 - 30.0, 1.5]))
    assert found.seeds == 3
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


def test_what_is_undefined_stays_so():
    assert math.isnan(estimate([0.5, math.nan]).mean)
