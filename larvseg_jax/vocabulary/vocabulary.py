"""Which classes there are, which of them are base and novel, and which of them a stream knows."""

from __future__ import annotations

import collections
import dataclasses
import difflib
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from larvseg_jax.errors import UserError

IGNORE_LABEL = -1
"""Label of pixels that take part in no loss and no metric, and filler of short tag lists."""

OTHER = "other"
"""What an evaluation with rivals calls the pixels that show, or are taken for, none of the classes it scores."""


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The union of all classes: the rows of the class embeddings and of the memory bank.

    `base` classes are learnt from masks, `novel` ones from tags only. `background` ('' if the data
    has none) belongs to neither and is reported apart; `ignore_in_eval` is left out of every mean.
    """

    classes: tuple[str, ...] = ()  # all class names, row by row
    base: tuple[str, ...] = ()  # learnt from masks
    novel: tuple[str, ...] = ()  # learnt from tags only
    background: str = ""  # reported apart; "" = none
    ignore_in_eval: tuple[str, ...] = ()  # left out of every mean
    # (name in some data, class): what data sets call otherwise ("couch", "sofa"), or know finer ("puppy", "dog").
    aliases: tuple[tuple[str, str], ...] = ()

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
        others = [other for other, _ in self.aliases]
        for other, name in self.aliases:
            self.row(name)
            if other in self._rows or others.count(other) > 1:
                what = "is a class itself" if other in self._rows else "is listed twice"
                raise UserError(f"vocabulary.aliases: {other!r}, for {name!r}, {what}: keep one of the two")

    def row(self, name: str) -> int:
        """Row of a class in the embedding table and the bank; UserError names the closest classes."""
        try:
            return self._rows[name]
        except KeyError:
            close = difflib.get_close_matches(name, self.classes, n=3)
            hint = f"did you mean {', '.join(close)}?" if close else f"it has {len(self.classes)} classes"
            raise UserError(f"class {name!r} is not in the vocabulary: {hint}") from None

    @functools.cached_property
    def _rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.classes)}

    def groups(self, names: Sequence[str]) -> tuple[str, ...]:
        """For every class name: base, novel, background, ignored, or "" for none of these."""
        group = dict.fromkeys(self.base, "base") | dict.fromkeys(self.novel, "novel")
        group |= {self.background: "background"} | dict.fromkeys(self.ignore_in_eval, "ignored")
        return tuple(group.get(name, "") for name in names)

    def label_set(self, names: Sequence[str] = ()) -> LabelSet:
        """The columns of a stream that knows the classes `names` (all of them if empty).

        A name given several times becomes one column with that multiplicity; columns keep the order of
        first mention. Data may call a class by an alias, too.
        """
        names = names or self.classes
        return self.label_set_of(names, names)

    def label_set_of(self, ids: Sequence[str], names: Sequence[str], *, merged: bool = True) -> LabelSet:
        """The columns of a stream whose data calls its classes `ids` and the vocabulary calls them `names`.

        Classes of one name (COCO-Stuff's seven kinds of wall) become one column with that multiplicity, or,
        with merged=False, keep a column each over the same row, as in the original.
        """
        if not merged:
            rows = np.array([self.row(name) for name in names], np.int32)
            members = self._with_aliases({c: i for i, c in enumerate(ids)})
            return LabelSet(tuple(ids), rows, np.ones(len(rows), np.float32), members)
        counts = collections.Counter(names)
        column = {name: i for i, name in enumerate(counts)}
        rows = np.array([self.row(name) for name in counts], np.int32)
        members = self._with_aliases({c: column[name] for c, name in zip(ids, names, strict=True)})
        return LabelSet(tuple(counts), rows, np.array(list(counts.values()), np.float32), members)

    def _with_aliases(self, members: Mapping[str, int]) -> dict[str, int]:
        """Columns by name, and by the aliases of the classes that are among them."""
        return {other: members[name] for other, name in self.aliases if name in members} | dict(members)

    def with_rivals(self, label_set: LabelSet, names: Sequence[str]) -> LabelSet:
        """A label set among rivals: its columns, one for OTHER, which never wins, and one for each further name.

        Pixels that the data calls OTHER have that column as their label.
        """
        own = set(label_set.names)
        rivals = collections.Counter(name for name in names if name not in own)
        rows = np.array([0, *map(self.row, rivals)], np.int32)
        return LabelSet(
            (*label_set.names, OTHER, *rivals),
            np.concatenate([label_set.rows, rows]),
            np.concatenate([label_set.multiplicity, np.array([0, *rivals.values()], np.float32)]),
            {**label_set.members, OTHER: len(label_set)},
            len(rivals),
        )


@dataclasses.dataclass(frozen=True)
class LabelSet:
    """The classes that one stream knows, as columns of its logits.

    Attributes:
      names: (N,) class names; a label l of the stream means names[l].
      rows: (N,) int32, row of each column in the vocabulary.
      multiplicity: (N,) float32, how many identical columns this one stands for (method 4: merged
        duplicates count m times in the mean, the variance and the softmax); 0 marks padding.
        `Original:` the columns stay separate; the values are the same.
      members: column of every class, by the name that the stream's data has for it.
      rivals: the last so many columns compete in an evaluation, but count as the column before them, OTHER.
    """

    names: tuple[str, ...]
    rows: np.ndarray
    multiplicity: np.ndarray
    members: Mapping[str, int]
    rivals: int = 0

    def __len__(self) -> int:
        return len(self.names)

    @property
    def scored(self) -> int:
        """How many columns have scores of their own, OTHER among them: all but the rivals."""
        return len(self.names) - self.rivals

    def column(self, name: str) -> int:
        """Column of a class by the data's name for it, or IGNORE_LABEL if this stream does not know it."""
        return self.members.get(name, IGNORE_LABEL)

    def padded(self, multiple: int) -> LabelSet:
        """The same columns followed by empty ones (row 0, multiplicity 0) up to a multiple."""
        extra = -len(self.names) % multiple
        return LabelSet(
            self.names + ("",) * extra,
            np.pad(self.rows, (0, extra)),
            np.pad(self.multiplicity, (0, extra)),
            self.members,
        )

    def spread(self, rows: int) -> LabelSet:
        """The same classes as columns 0 ... rows - 1, each at the place of its row; the others are empty.

        The rows must differ. A label l becomes column self.rows[l].
        """
        names, multiplicity = np.full(rows, "", object), np.zeros(rows, np.float32)
        names[self.rows], multiplicity[self.rows] = self.names, self.multiplicity
        members = {name: int(self.rows[column]) for name, column in self.members.items()}
        return LabelSet(tuple(names), np.arange(rows, dtype=np.int32), multiplicity, members)
