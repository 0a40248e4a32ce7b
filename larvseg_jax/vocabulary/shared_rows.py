"""Which classes of several data sets are one row of the vocabulary."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Iterator, Sequence

from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary.class_lists import ClassList

_Class = tuple[str, int]
"""Key of a list and the first label of a class; labels that share a title may be one class."""


@dataclasses.dataclass(frozen=True)
class SharedRows:
    """Several class lists over one set of rows.

    Attributes:
      classes: unique name of every row, in order of first mention.
      names: by key of a class list, the name of the row of every label.
      ambiguous: titles that lists have in common but not the row, because several classes bear them.
    """

    classes: tuple[str, ...]
    names: dict[str, tuple[str, ...]]
    ambiguous: tuple[str, ...]

    def shared(self, first: str, second: str) -> tuple[str, ...]:
        """Rows that two lists have in common."""
        both = set(self.names[first]) & set(self.names[second])
        return tuple(name for name in self.classes if name in both)


def unite(lists: Sequence[ClassList], share: str) -> SharedRows:
    """The union vocabulary of several class lists.

    share="title" (`Original:`): all classes of one title share a row, within a list, too.
    share="synset": classes of two lists share one if they have a synset in common or, where one of them has
    none, the same title, and no other class of these lists qualifies. So 21,841 synsets keep a row each.
    share="none": no two lists share any.
    In each case classes of one list without synsets share a row if they share a title (COCO-Stuff's walls).
    """
    if share not in ("title", "synset", "none"):
        raise UserError(f"class_lists.share is {share!r}: use 'title', 'synset' or 'none'")
    twice = [key for key, n in collections.Counter(x.key for x in lists).items() if n > 1]
    if twice:
        raise UserError(f"class_lists.lists names {twice[0]!r} twice: keep one")
    classes = [_classes_of(x, by_title=share == "title") for x in lists]
    rows = _Rows(itertools.chain(*classes))
    pairs = list(itertools.combinations(lists, 2))
    if share == "synset":
        for a, b in pairs:
            rows.join_unique(_same_synset(a, b))
    if share != "none":
        for a, b in pairs:
            rows.join_unique(_same_title(a, b, always=share == "title"))
    return _named(lists, classes, rows)


def _classes_of(x: ClassList, by_title: bool) -> list[_Class]:
    """The class of every label."""
    first: dict[str, int] = {}
    return [
        (x.key, first.setdefault(title, label) if by_title or not synsets else label)
        for label, (title, synsets) in enumerate(zip(x.titles, x.synsets, strict=True))
    ]


class _Rows:
    """Classes joined into rows; a row never holds two classes of one list."""

    def __init__(self, classes: Iterator[_Class]) -> None:
        self._members = {c: [c] for c in classes}  # joined classes have the very same list

    def __getitem__(self, c: _Class) -> _Class:
        """The class that a row is known by."""
        return self._members[c][0]

    def join_unique(self, pairs: Iterator[tuple[_Class, _Class]]) -> None:
        """Joins the pairs whose classes occur in no other pair."""
        distinct = set(pairs)
        times = collections.Counter(itertools.chain(*distinct))
        for a, b in sorted(distinct):
            ours, theirs = self._members[a], self._members[b]
            if times[a] == times[b] == 1 and not {key for key, _ in ours} & {key for key, _ in theirs}:
                ours += theirs
                for c in theirs:
                    self._members[c] = ours


def _same_synset(a: ClassList, b: ClassList) -> Iterator[tuple[_Class, _Class]]:
    labels = collections.defaultdict(list)
    for label, synsets in enumerate(b.synsets):
        for synset in synsets:
            labels[synset].append(label)
    for label, synsets in enumerate(a.synsets):
        for synset in synsets:
            yield from (((a.key, label), (b.key, other)) for other in labels[synset])


def _same_title(a: ClassList, b: ClassList, *, always: bool) -> Iterator[tuple[_Class, _Class]]:
    """Pairs of one title; those in which both have synsets only with `always`."""
    ours, theirs = _classes_of(a, by_title=always), _classes_of(b, by_title=always)
    labels = collections.defaultdict(set)
    for title, c in zip(b.titles, theirs, strict=True):
        labels[title].add(c)
    for title, synsets, c in zip(a.titles, a.synsets, ours, strict=True):
        for other in labels.get(title, ()):
            if always or not synsets or not b.synsets[other[1]]:
                yield c, other


def _named(lists: Sequence[ClassList], classes: Sequence[Sequence[_Class]], rows: _Rows) -> SharedRows:
    """Gives every row the title of its first class, made unique by its synset or list where several bear it."""
    name: dict[_Class, str] = {}
    taken: set[str] = set()
    bearers = collections.defaultdict(set)
    for x, own in zip(lists, classes, strict=True):
        crowded = {title for title, n in collections.Counter(x.titles[label] for _, label in set(own)).items() if n > 1}
        for c in own:
            title, row = x.titles[c[1]], rows[c]
            bearers[title].add((x.key, row))
            if row not in name:
                mark = x.ids[c[1]] if title in crowded else x.key if title in taken else ""
                name[row] = f"{title} ({mark})" if mark else title
                taken.add(name[row])
    names = {x.key: tuple(name[rows[c]] for c in own) for x, own in zip(lists, classes, strict=True)}
    ambiguous = (
        title for title, of in bearers.items() if len({row for _, row in of}) > 1 and len({key for key, _ in of}) > 1
    )
    return SharedRows(tuple(name.values()), names, tuple(ambiguous))
