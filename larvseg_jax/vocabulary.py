"""Which classes there are, which of them are base and novel, and which of them a stream knows."""

from __future__ import annotations

import collections
import dataclasses
import difflib
import hashlib
import json
from collections.abc import Sequence

import numpy as np

from larvseg_jax.errors import UserError

IGNORE_LABEL = -1
"""Label of pixels that take part in no loss and no metric, and filler of short tag lists."""


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The union of all classes: the rows of the class embeddings and of the memory bank.

    `base` classes are learnt from masks, `novel` ones from tags only. `background` ('' if the data
    has none) belongs to neither and is reported apart; `ignore_in_eval` is left out of every mean.
    """

    classes: tuple[str, ...]
    base: tuple[str, ...]
    novel: tuple[str, ...]
    background: str = ""
    ignore_in_eval: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        twice = [n for n, k in collections.Counter(self.classes).items() if k > 1]
        if twice:
            raise UserError(f"vocabulary.classes lists {twice[0]!r} twice: every class needs one row")
        named = (*self.base, *self.novel, *self.ignore_in_eval)
        for name in (*named, *filter(None, [self.background])):
            self.row(name)
        both = sorted(set(self.base) & set(self.novel))
        if both:
            raise UserError(f"class {both[0]!r} is listed as base and as novel: keep it in one of the two")

    @property
    def digest(self) -> str:
        """SHA-256 of the class names in row order: equal digests mean interchangeable checkpoints."""
        return hashlib.sha256(json.dumps(self.classes).encode()).hexdigest()

    def row(self, name: str) -> int:
        """Row of a class in the embedding table and the bank; UserError names the closest classes."""
        try:
            return self.classes.index(name)
        except ValueError:
            close = difflib.get_close_matches(name, self.classes, n=3)
            hint = f"did you mean {', '.join(close)}?" if close else f"it has {len(self.classes)} classes"
            raise UserError(f"class {name!r} is not in the vocabulary: {hint}") from None

    def label_set(self, names: Sequence[str] = ()) -> LabelSet:
        """The columns of a stream that knows the classes `names` (all of them if empty).

        A name given several times (COCO-Stuff's seven kinds of wall) becomes one column with that
        multiplicity; columns keep the order of first mention.
        """
        counts = collections.Counter(names or self.classes)
        rows = np.array([self.row(n) for n in counts], np.int32)
        return LabelSet(tuple(counts), rows, np.array(list(counts.values()), np.float32))


@dataclasses.dataclass(frozen=True)
class LabelSet:
    """The classes that one stream knows, as columns of its logits.

    Attributes:
      names: (N,) class names; a label l of the stream means names[l].
      rows: (N,) int32, row of each column in the vocabulary.
      multiplicity: (N,) float32, how many identical columns this one stands for (method 4: merged
        duplicates count m times in the mean, the variance and the softmax); 0 marks padding.
        `Original:` the columns stay separate; the values are the same.
    """

    names: tuple[str, ...]
    rows: np.ndarray
    multiplicity: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def column(self, name: str) -> int:
        """Column of a class, or IGNORE_LABEL if this stream does not know it."""
        return self.names.index(name) if name in self.names else IGNORE_LABEL

    def padded(self, multiple: int) -> LabelSet:
        """The same columns followed by empty ones (row 0, multiplicity 0) up to a multiple."""
        extra = -len(self.names) % multiple
        return LabelSet(
            self.names + ("",) * extra,
            np.pad(self.rows, (0, extra)),
            np.pad(self.multiplicity, (0, extra)),
        )
