"""Labels at a depth and back-off, against loops over pixels and nodes."""

import numpy as np
import pytest

from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary.hierarchy import wordnet
from larvseg_jax.vocabulary.levels import ClassTree, back_off

NAMES = ("dog", "toy_poodle", "wolf", "cat", "car", "bicycle", "sky", "thingummy")
NOUNS = wordnet()
SYNSETS = tuple(NOUNS.senses(name)[:1] for name in NAMES[:-1]) + ((),)
TREE = ClassTree.of(NAMES, SYNSETS, NOUNS)


def way_up(synset):
    """By first hypernyms, as a list of names from the root on."""
    above = NOUNS.hypernyms[synset]
    return [*(way_up(above[0]) if above else ()), NOUNS.name(synset)]


WAYS = {name: way_up(of[0]) if of else [name] for name, of in zip(NAMES, SYNSETS, strict=True)}


@pytest.mark.parametrize("depth", [0, 1, 5, 6, 11, 12, 13, 40])
def test_every_class_at_a_depth(depth):
    expected = [WAYS[name][min(depth, len(WAYS[name]) - 1)] for name in NAMES]
    assert [TREE.node_names[node] for node in TREE.at_depth(depth)] == expected
    columns, names = TREE.cut(depth)
    assert [names[column] for column in columns] == expected
    assert sorted(set(columns.tolist())) == list(range(len(set(expected))))


def test_well_known_depths():
    assert WAYS["dog"][6] == "animal.n.01"
    assert WAYS["dog"][-2:] == ["canine.n.02", "dog.n.01"]  # and no domestic animal
    animals = [TREE.node_names[node] for node in TREE.at_depth(6)[:4]]
    assert animals == ["animal.n.01"] * 4
    assert [TREE.node_names[node] for node in TREE.at_depth(0)] == ["entity.n.01"] * 7 + ["thingummy"]
    with pytest.raises(UserError, match="depth is -1: use 0 or more"):
        TREE.at_depth(-1)


def test_a_class_takes_its_first_synset_that_is_known_and_names_are_no_synsets():
    dog = NOUNS.find("dog.n.01")
    tree = ClassTree.of((dog, "pet", "lost"), ((), ("n99999999", dog), ("n99999999",)), NOUNS)
    assert [tree.node_names[node] for node in tree.at_depth(99)] == [dog, "dog.n.01", "lost"]
    assert ClassTree.of((), (), NOUNS).cut(3)[1] == ()


def slow_back_off(labels, probabilities, threshold):
    """The deepest node and its probability for one pixel, over all nodes there are."""
    sums, depths = {}, {}
    for label, p in zip(labels, probabilities, strict=True):
        for depth, node in enumerate(WAYS[NAMES[label]]):
            sums[node] = sums.get(node, 0.0) + float(p)
            depths[node] = depth
    passing = [node for node in sums if sums[node] >= threshold]
    if not passing:
        return None, 0.0
    best = max(passing, key=lambda node: (depths[node], sums[node]))
    return best, sums[best]


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.62, 0.9])
@pytest.mark.parametrize("k", [3, 8])
def test_back_off_against_a_loop(threshold, k):
    rng = np.random.default_rng(k)
    p = rng.dirichlet(np.full(8, 0.4), (5, 7)).astype(np.float32)
    labels = np.argsort(-p, axis=-1)[..., :k].astype(np.int32)
    best = np.take_along_axis(p, labels, -1)
    found = back_off(TREE, best, labels, threshold)
    assert found.nodes.shape == found.probabilities.shape == (5, 7)
    for y, x in np.ndindex(5, 7):
        node, probability = slow_back_off(labels[y, x], best[y, x], threshold)
        assert (TREE.node_names[found.nodes[y, x]] if found.nodes[y, x] >= 0 else None) == node
        assert found.probabilities[y, x] == pytest.approx(probability, abs=1e-6)
    if k == 8:
        whole = back_off(TREE, p, threshold=threshold)
        np.testing.assert_array_equal(whole.nodes, found.nodes)
        np.testing.assert_allclose(whole.probabilities, found.probabilities, atol=1e-6)


def test_back_off_by_hand():
    p = np.array(
        [
            [0.9, 0, 0, 0, 0.1, 0, 0, 0],  # a dog
            [0.3, 0.3, 0, 0.4, 0, 0, 0, 0],  # a dog, the poodle with it; though the best class is cat
            [0.3, 0, 0.3, 0.4, 0, 0, 0, 0],  # a dog or a wolf
            [0.2, 0, 0.2, 0.2, 0.4, 0, 0, 0],  # a carnivore
            [0, 0, 0, 0, 0.3, 0.3, 0, 0.4],  # car or bicycle
            [0.5, 0, 0, 0, 0, 0, 0, 0.5],  # nothing passes
            [0, 0, 0, 0, 0, 0, 0.1, 0.9],
        ],
        np.float32,
    )
    found = back_off(TREE, p, threshold=0.55)
    shown = [TREE.node_names[node] if node >= 0 else None for node in found.nodes]
    assert shown == ["dog.n.01", "dog.n.01", "canine.n.02", "carnivore.n.01", "wheeled_vehicle.n.01", None, "thingummy"]
    np.testing.assert_allclose(found.probabilities, [0.9, 0.6, 0.6, 0.6, 0.6, 0, 0.9], atol=1e-6)


def test_certainty_may_be_asked_for_whatever_the_rounding():
    p = np.full((1, 8), 1 / 8, np.float32)
    p[0, :7] = (1 - np.float32(1e-7)) / 7
    p[0, 7] = 0
    assert TREE.node_names[back_off(TREE, p, threshold=1.0).nodes[0]] == "physical_entity.n.01"


def test_requests_that_make_no_sense():
    p = np.zeros((2, 3), np.float32)
    for threshold in (0.0, -1.0, 1.1):
        with pytest.raises(UserError, match="use one above 0, at most 1"):
            back_off(TREE, p, np.zeros((2, 3), np.int32), threshold)
    with pytest.raises(UserError, match="3 probabilities for 8 classes: give the labels"):
        back_off(TREE, p)
