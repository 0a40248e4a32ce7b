"""The classes of a label set in one tree, and coarser labels by it: a cut at a depth, a back-off where it is unsure.

WordNet's nouns are no tree: a dog is a canine and a domestic animal. Here every synset hangs below its first hypernym
only, and a class is its first synset, so that each class has one way up. Depths count from the root, entity.n.01, which
is 0; dog.n.01 is at 13. A class without a synset is a root itself. Arrays have nodes by their places in
`ClassTree.nodes`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32

from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary.hierarchy import Hierarchy

_ROUNDING = 1e-5  # by which float32 sums of probabilities may miss a threshold


@dataclasses.dataclass(frozen=True)
class ClassTree:
    """Some classes and all that is above them.

    Attributes:
      names: of the classes.
      nodes: WordNet ids; of a class without synset its name.
      node_names: the same for people: "dog.n.01".
      ancestors: the node above, or equal to, each class at each depth; -1 where the depth is below the class.
    """

    names: tuple[str, ...]
    nodes: tuple[str, ...]
    node_names: tuple[str, ...]
    ancestors: Int32[np.ndarray, "classes depths"]

    @classmethod
    def of(cls, names: Sequence[str], synsets: Sequence[Sequence[str]], hierarchy: Hierarchy) -> ClassTree:
        """The tree of classes with these WordNet ids, of each class the first that the hierarchy has."""
        known = [next((synset for synset in of if synset in hierarchy), None) for of in synsets]
        # A name may look like an id: a root that is a name is kept apart from a node that is a synset.
        paths = [
            tuple((synset, True) for synset in hierarchy.path(synset)) if synset else ((name, False),)
            for name, synset in zip(names, known, strict=True)
        ]
        number = {node: i for i, node in enumerate(dict.fromkeys(node for path in paths for node in path))}
        ancestors = np.full((len(names), max(map(len, paths), default=0)), -1, np.int32)
        for row, path in zip(ancestors, paths, strict=True):
            row[: len(path)] = [number[node] for node in path]
        nodes = tuple(node for node, _ in number)
        return cls(
            tuple(names), nodes, tuple(hierarchy.name(node) if is_id else node for node, is_id in number), ancestors
        )

    def at_depth(self, depth: int) -> Int32[np.ndarray, " classes"]:
        """The node of each class at a depth; of classes that are less deep their own. It turns labels into nodes.

        Raises:
          UserError: the depth is negative.
        """
        if depth < 0:
            raise UserError(f"depth is {depth}: use 0 or more")
        return self.ancestors[np.arange(len(self.names)), np.minimum(depth, (self.ancestors >= 0).sum(1) - 1)]

    def cut(self, depth: int) -> tuple[Int32[np.ndarray, " classes"], tuple[str, ...]]:
        """The same as columns of a smaller label set: that of each class, and the columns' names."""
        nodes, columns = np.unique(self.at_depth(depth), return_inverse=True)
        return columns.astype(np.int32), tuple(self.node_names[node] for node in nodes)


class BackedOff(NamedTuple):
    """What pixels show, as surely as was asked for.

    Attributes:
      nodes: of the tree; -1 where nothing passes the threshold.
      probabilities: of these nodes; 0 where there is none.
    """

    nodes: Int32[np.ndarray, "*pixels"]
    probabilities: Float32[np.ndarray, "*pixels"]


def back_off(
    tree: ClassTree,
    probabilities: Float32[np.ndarray, "*pixels k"],
    labels: Int32[np.ndarray, "*pixels k"] | None = None,
    threshold: float = 0.5,
) -> BackedOff:
    """For each pixel the deepest node whose probability, the sum of the classes below or equal to it, is large enough.

    With a threshold of more than 0.5 all nodes that pass lie on one way up, and the deepest is one. With less there may
    be several of one depth: the most probable of them is taken, and of equal ones that of the class that comes first.
    Of the best k of many classes the others count for nothing: a node then has at least the probability that is said,
    and where the k together stay below the threshold there is none.

    Args:
      tree: of the classes that compete.
      probabilities: of the classes `labels`; or of all classes in the tree's order.
      labels: which classes these are, each at most once in a pixel; None: all of them.
      threshold: above 0, at most 1.

    Raises:
      UserError: the threshold is none, or the probabilities are not those of all classes.
    """
    if not 0 < threshold <= 1:
        raise UserError(f"threshold is {threshold}: use one above 0, at most 1")
    shape, k = probabilities.shape[:-1], probabilities.shape[-1]
    if labels is None and k != len(tree.names):
        raise UserError(f"there are {k} probabilities for {len(tree.names)} classes: give the labels of the k, too")
    p = probabilities.reshape(-1, k)
    label = None if labels is None else labels.reshape(-1, k)
    nodes, sums = np.full(len(p), -1, np.int32), np.zeros(len(p), np.float32)
    left = np.arange(len(p))  # pixels that have no node yet
    for depth in reversed(range(tree.ancestors.shape[1])):
        at = tree.ancestors[:, depth]
        node, total = _best_of_all(at, p[left]) if label is None else _best_of_few(at[label[left]], p[left])
        passes: Bool[np.ndarray, " n"] = (total >= threshold - _ROUNDING) & (node >= 0)
        nodes[left[passes]], sums[left[passes]] = node[passes], total[passes]
        left = left[~passes]
    return BackedOff(nodes.reshape(shape), sums.reshape(shape))


def _best_of_all(
    at: Int32[np.ndarray, " classes"], p: Float32[np.ndarray, "n classes"]
) -> tuple[Int32[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
    """The most probable node of one depth, and its probability."""
    there = list(dict.fromkeys(at[at >= 0].tolist()))  # in order of the first class
    sums = p @ (at[:, None] == np.array(there, np.int32)).astype(np.float32)
    best = sums.argmax(1)
    return np.array(there, np.int32)[best], sums[np.arange(len(p)), best]


def _best_of_few(
    at: Int32[np.ndarray, "n k"], p: Float32[np.ndarray, "n k"]
) -> tuple[Int32[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
    """The same where each pixel has classes of its own."""
    sums = np.zeros(p.shape, np.float32)
    for other in range(p.shape[1]):
        sums += (at == at[:, other, None]) * p[:, other, None]
    sums[at < 0] = 0
    best = sums.argmax(1)
    every = np.arange(len(p))
    return at[every, best], sums[every, best]
