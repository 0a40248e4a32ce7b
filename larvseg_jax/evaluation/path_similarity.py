"""How alike classes are in WordNet: the path similarity of their synsets.

A synset's hypernyms are what it is a kind, or an instance, of. Let up(x, a) be the fewest steps from synset x up to a,
0 if they are one. Then

    steps(x, y) = min over all a above or equal to both of  up(x, a) + up(y, a)
    similarity(x, y) = 1 / (1 + steps(x, y))

Dog and cat are two steps below carnivore each: 1/5. A class with several synsets counts by the nearest of them; one
with none, and any two with nothing above them both, have similarity 0 to each other. Every class has 1 to itself.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from larvseg_jax.errors import UserError

Hypernyms = Mapping[str, Sequence[str]]
"""WordNet id of each synset -> those of its hypernyms (data_pipelines/wordnet.py)."""

_APART = 255  # steps where there is no path; WordNet's longest has fewer than 40


class PathSimilarity:
    """Similarities of the classes of one label set, by their columns.

    Of all pairs only what is asked for is computed, one class against all at a time, a byte for each pair.

    Args:
      hypernyms: of all synsets of nouns.
      synsets: WordNet ids of each column.

    Raises:
      UserError: most of these synsets are not in `hypernyms`, which is another version of WordNet, then.

    Attributes:
      without: how many columns have no synset that is known, so that they are like nothing but themselves.
    """

    def __init__(self, hypernyms: Hypernyms, synsets: Sequence[Sequence[str]]) -> None:
        unknown = [synset for of in synsets for synset in of if synset not in hypernyms]
        if 2 * len(unknown) > sum(map(len, synsets)):
            raise UserError(
                f"WordNet lacks {len(unknown):,} synsets of the classes, {unknown[0]} first: give those of WordNet "
                "3.0, other versions number theirs otherwise"
            )
        self._above = [_above(hypernyms, [s for s in of if s in hypernyms]) for of in synsets]
        self.without = sum(not above for above in self._above)
        below: dict[str, list[tuple[int, int]]] = collections.defaultdict(list)
        for column, above in enumerate(self._above):
            for synset, steps in above.items():
                below[synset].append((column, steps))
        self._below = {synset: np.array(found, np.int32).T for synset, found in below.items()}
        self._rows: dict[int, UInt8[np.ndarray, " n"]] = {}

    def __len__(self) -> int:
        return len(self._above)

    def __call__(self, these: Int64[np.ndarray, " k"], those: Int64[np.ndarray, " k"]) -> Float64[np.ndarray, " k"]:
        """Similarity of each pair of columns."""
        steps = np.array([self._steps(a)[b] for a, b in zip(these.tolist(), those.tolist(), strict=True)], np.int64)
        return np.where(steps == _APART, 0.0, 1 / (1 + steps))

    def _steps(self, column: int) -> UInt8[np.ndarray, " n"]:
        """From one class to all."""
        if column not in self._rows:
            row = np.full(len(self), _APART, np.int32)
            for synset, up in self._above[column].items():
                columns, steps = self._below[synset]
                row[columns] = np.minimum(row[columns], up + steps)
            row[column] = 0
            self._rows[column] = row.astype(np.uint8)
        return self._rows[column]


def _above(hypernyms: Hypernyms, synsets: Iterable[str]) -> dict[str, int]:
    """All synsets above or equal to any of these, with the fewest steps up to them."""
    steps = dict.fromkeys(synsets, 0)
    waiting = collections.deque(steps)
    while waiting:
        synset = waiting.popleft()
        for above in hypernyms.get(synset, ()):
            if above not in steps:
                steps[above] = steps[synset] + 1
                waiting.append(above)
    return steps
