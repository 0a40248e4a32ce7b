"""The classes of a run: its vocabulary, and which of them a stream or an evaluation knows."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable
from typing import Literal, Protocol, runtime_checkable

from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary.base_novel import BaseNovel
from larvseg_jax.vocabulary.class_lists import as_original, class_list
from larvseg_jax.vocabulary.shared_rows import SharedRows, unite
from larvseg_jax.vocabulary.vocabulary import LabelSet, Vocabulary


@dataclasses.dataclass(frozen=True)
class ClassListsConfig:
    """The section `class_lists`: instead of a vocabulary, the union of class lists that ship with the package."""

    lists: tuple[str, ...] = ()  # their union is the vocabulary; base are the classes that a mask stream knows
    share: Literal["title", "synset", "none"] = "title"  # which classes of two lists share a row (title: Original)
    # COCO-Stuff's 7 kinds of wall: one column counted 7 times, or 7 columns (Original; the values are the same).
    duplicates: Literal["merged", "separate"] = "merged"


@runtime_checkable
class Knows(Protocol):
    """What names classes: a stream or an evaluation."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the vocabulary; () = all."""
        ...

    @property
    def class_list(self) -> str:
        """One of class_lists.lists instead, or ""."""
        ...


@runtime_checkable
class Scores(Knows, Protocol):
    """An evaluation, which may let further classes compete with those it scores."""

    @property
    def rivals(self) -> str:
        """One of class_lists.lists, or ""."""
        ...


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """All classes of a run.

    Attributes:
      vocabulary: rows, base and novel.
      shared: the class lists it was made of, None if the config names its classes itself.
      separate: whether equal columns of a list stay separate in training.
    """

    vocabulary: Vocabulary
    shared: SharedRows | None = None
    separate: bool = False

    @classmethod
    def of(cls, vocabulary: Vocabulary, config: ClassListsConfig, masked: Iterable[Knows]) -> Catalogue:
        """The vocabulary given, or the union of class lists: base is what a stream of masks knows, all else novel."""
        if not config.lists:
            return cls(vocabulary)
        if vocabulary.classes:
            raise UserError("vocabulary.classes and class_lists.lists are both given: keep one of the two")
        lists = [as_original(key) if ":" in key else class_list(key) for key in config.lists]
        shared = unite(lists, config.share)
        known = {name for stream in masked for name in shared.names.get(stream.class_list, stream.classes)}
        base = tuple(name for name in shared.classes if name in known)
        novel = tuple(name for name in shared.classes if name not in known)
        return cls(Vocabulary(shared.classes, base, novel), shared, config.duplicates == "separate")

    def label_set(self, knows: Knows, *, evaluation: bool = False) -> LabelSet:
        """The classes that a stream, or an evaluation, knows, as columns.

        An evaluation may name a class list that the vocabulary was not made of (ImageNet-S): its classes are found by
        their synsets.
        """
        if knows.class_list:
            names = self._names_of(knows.class_list, evaluation=evaluation)
            # Of equal columns the first wins every argmax: merged or not is the same in an evaluation.
            merged = evaluation or not self.separate
            label_set = self.vocabulary.label_set_of(class_list(knows.class_list).ids, names, merged=merged)
        else:
            label_set = self.vocabulary.label_set(knows.classes)
        if evaluation and isinstance(knows, Scores) and knows.rivals:
            return self.vocabulary.with_rivals(label_set, self._names(knows.rivals))
        return label_set

    def synsets(self, scores: Scores) -> dict[str, tuple[str, ...]]:
        """WordNet ids of the classes that compete in an evaluation, by their names here; () without class lists."""
        found: dict[str, tuple[str, ...]] = {}
        for key in filter(None, (scores.class_list, scores.rivals)):
            for name, synsets in zip(self._names_of(key, evaluation=True), class_list(key).synsets, strict=True):
                found[name] = tuple(dict.fromkeys((*found.get(name, ()), *synsets)))
        return found

    def definitions(self, key: str, wanted: Iterable[str]) -> tuple[BaseNovel, ...]:
        """Other definitions of base and novel for a class list (ClassList.base_novel), in names of its columns."""
        wanted = tuple(wanted)
        if not wanted:
            return ()
        if self.shared is None or key not in self.shared.names:
            raise UserError(f"base_novel {wanted} needs class_list: ade20k_150 or ade20k_full_847")
        column = dict(zip(class_list(key).ids, self.shared.names[key], strict=True))
        found = (class_list(key).base_novel(definition) for definition in wanted)
        return tuple(BaseNovel(x.label, frozenset(column[i] for i in x.base)) for x in found)

    def _names_of(self, key: str, *, evaluation: bool) -> tuple[str, ...]:
        """The vocabulary's names of a class list, which may only in an evaluation be none of those it was made of."""
        here = self.shared is None or key in self.shared.names or not evaluation
        return self._names(key) if here else self._found(key)

    def _names(self, key: str) -> tuple[str, ...]:
        """The vocabulary's names of a class list, in label order."""
        if self.shared is None or key not in self.shared.names:
            listed = ", ".join(self.shared.names) if self.shared else "nothing"
            raise UserError(f"class_list {key!r} is not in class_lists.lists, which has {listed}: add it")
        return self.shared.names[key]

    def _found(self, key: str) -> tuple[str, ...]:
        """The vocabulary's names of a class list that is not in the union: by synset, or else by title."""
        assert self.shared is not None
        by_synset: dict[str, set[str]] = collections.defaultdict(set)
        by_title: dict[str, set[str]] = collections.defaultdict(set)
        for listed, names in self.shared.names.items():
            there = class_list(listed)
            for name, title, synsets in zip(names, there.titles, there.synsets, strict=True):
                by_title[title].add(name)
                for synset in synsets:
                    by_synset[synset].add(name)
        wanted = class_list(key)
        found: list[str] = []
        for i, title, synsets in zip(wanted.ids, wanted.titles, wanted.synsets, strict=True):
            rows = {name for synset in synsets for name in by_synset.get(synset, ())} or by_title.get(title, set())
            if len(rows) != 1:
                what = f"is in none of class_lists.lists ({', '.join(self.shared.names)})" if not rows else "is several"
                raise UserError(f"class_list {key!r}: its class {i} ({title}) {what}: add {key} to them")
            found += rows
        return tuple(found)
