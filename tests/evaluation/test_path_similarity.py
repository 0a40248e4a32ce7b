"""Path similarities of well-known synsets."""

import numpy as np
import pytest

from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.path_similarity import PathSimilarity
from tests.evaluation.wordnet_files import ANIMAL, BICYCLE, CANINE, CAR, CAT, DOG, ENTITY, KINDS, WOLF


@pytest.mark.parametrize(
    ("these", "those", "steps"),
    [
        ((DOG,), (CAT,), 4),  # both two below carnivore: NLTK's documented 0.2
        ((DOG,), (WOLF,), 2),
        ((DOG,), (CANINE,), 1),
        ((CAR,), (BICYCLE,), 4),  # three and one below wheeled vehicle
        ((DOG,), (ANIMAL,), 2),  # by way of domestic animal, not of canine
        ((CAR,), (CAT,), 8),  # four below entity each
        ((CAR, WOLF), (DOG, BICYCLE), 2),  # of several synsets the nearest two
    ],
)
def test_well_known_similarities(these, those, steps):
    similarity = PathSimilarity(KINDS, [these, (ENTITY,), those])
    assert similarity(np.array([0, 2, 0, 2]), np.array([2, 0, 0, 2])) == pytest.approx([1 / (1 + steps)] * 2 + [1, 1])
    assert similarity.without == 0


def test_what_has_nothing_in_common_has_no_similarity():
    similarity = PathSimilarity({**KINDS, "n99999999": ()}, [(DOG,), (), ("n99999999",), ()])
    assert similarity(np.array([0, 0, 1, 1, 2]), np.array([1, 2, 1, 3, 0])).tolist() == [0, 0, 1, 0, 0]
    assert similarity.without == 2


def test_another_version_of_wordnet_is_a_user_error():
    PathSimilarity(KINDS, [(DOG,), ("n03343560",)])  # half of them: mistakes in a class list
    with pytest.raises(UserError, match=r"lacks 2 synsets of the classes, n03343560 first: give those of WordNet 3.0"):
        PathSimilarity(KINDS, [(DOG,), ("n03343560",), ("n00000001",)])
