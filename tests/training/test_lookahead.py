"""Batches a few steps ahead: the same ones, and an error is known before it comes."""

import pytest

from larvseg_jax.errors import UserError
from larvseg_jax.training.lookahead import looked_ahead


def failing_after(count, read):
    for number in range(count):
        read.append(number)
        yield number
    raise UserError("no photo")


def test_an_error_is_foreseen_that_many_batches_before_it_is_raised():
    foreseen, read = [], []
    batches = looked_ahead(failing_after(10, read), foreseen.append, ahead=4)
    seen = []
    for _ in range(6):
        assert not foreseen
        seen.append(next(batches))
    assert read == list(range(10))
    seen.append(next(batches))
    assert [str(error) for error in foreseen] == ["no photo"]  # with number 6: 7, 8, 9 and the error are to come
    seen += [next(batches) for _ in range(3)]
    with pytest.raises(UserError, match="no photo"):
        next(batches)
    assert seen == list(range(10))
    assert len(foreseen) == 1


def test_without_an_error_nothing_is_foreseen():
    foreseen = []
    assert list(looked_ahead(iter(range(7)), foreseen.append)) == list(range(7))
    assert list(looked_ahead(iter(range(2)), foreseen.append)) == [0, 1]
    assert not foreseen
