"""Which words name things or grounds, and what is a kind of what, by WordNet's own files.

These (index.noun, data.noun, noun.exc, verb.exc, cntlist.rev) are a few megabytes of text (Debian's package
wordnet-base, or the `dict` folder of WordNet 3.0 or 3.1) and need no library. ImageNet's ids are those of 3.0, as
Debian's.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from larvseg_jax.errors import UserError

T = TypeVar("T")

KINDS = {
    5: "animal",
    6: "artifact",
    13: "food",
    17: "object",
    18: "person",
    19: "phenomenon",
    20: "plant",
    27: "substance",
}
"""Lexicographer files whose nouns can be a region of a photo. Parts of bodies are not: they lie in another."""

PERSONS = ("person", "people", "someone", "somebody")
"""Persons whose first sense stands elsewhere, as the root of all persons or as a group."""

ENDINGS = (
    ("ches", "ch"), ("shes", "sh"), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ies", "y"), ("men", "man"), ("s", ""),
)  # fmt: skip
"""How regular plurals end (morphy(7WN)); the first that gives a noun counts."""

SHORTEST = 3  # letters: "us", "his", "was" would be plurals of nouns


class WordNet:
    """Nouns of things and grounds.

    Args:
      folder: where the files are.

    Raises:
      UserError: a file is missing or is not WordNet's.
    """

    def __init__(self, folder: Path) -> None:
        kinds = dict(_entries(folder / "data.noun", lambda line: (line[0], int(line[1]))))
        # The third word says how many senses there are, the last ones where these stand, the most frequent first.
        senses = _entries(folder / "index.noun", lambda line: (line[0], line[-int(line[2])]))
        self._first = {lemma: kinds.get(first, 0) for lemma, first in senses}
        self._singular = dict(_entries(folder / "noun.exc", lambda line: (line[0], line[1])))
        verbs = dict(_entries(folder / "verb.exc", lambda line: (line[0], line[1])))
        self._as_noun: collections.Counter[str] = collections.Counter()
        self._as_other: collections.Counter[str] = collections.Counter()
        for key, count in _entries(folder / "cntlist.rev", lambda line: (line[0], int(line[2]))):
            lemma, _, sense = key.partition("%")
            (self._as_noun if sense.startswith("1:") else self._as_other)[lemma] += count
        self._as_other.update({word: self._as_other[verb] for word, verb in verbs.items() if word != verb})

    def thing(self, word: str) -> tuple[str, str] | None:
        """The singular and the kind (KINDS) of a lower-case word; None if it names no thing.

        It does if the first, that is the most frequent, sense of the noun is of such a kind, and the word is no more
        often a verb, an adjective or an adverb in WordNet's tagged texts than it is a noun.
        """
        if word in PERSONS:
            return word, "person"
        noun = self._lemma(word)
        if noun is None or self._first[noun] not in KINDS:
            return None
        if max(self._as_other[noun], self._as_other[word]) > self._as_noun[noun]:
            return None
        return noun, KINDS[self._first[noun]]

    def _lemma(self, word: str) -> str | None:
        """The singular of a noun that WordNet has."""
        candidates = [self._singular.get(word, word), word]
        candidates += [word.removesuffix(end) + new for end, new in ENDINGS if word.endswith(end)]
        return next((c for c in candidates if len(c) >= SHORTEST and c in self._first), None)


class Synset(NamedTuple):
    """A noun with one meaning.

    Attributes:
      id: as ImageNet writes it: "n" and the eight digits of the synset in data.noun.
      words: those that mean it, with underscores, the first by which it is called; and which of the meanings of each
        word it is, 1 the most frequent.
      hypernyms: ids of what it is a kind of, or an instance of.
    """

    id: str
    words: tuple[tuple[str, int], ...]
    hypernyms: tuple[str, ...]


def synsets(folder: Path) -> Iterator[Synset]:
    """All nouns, in the order of data.noun (wndb(5WN)).

    Args:
      folder: where data.noun and index.noun are.

    Raises:
      UserError: a file is missing or is not WordNet's.
    """
    senses = dict(_entries(folder / "index.noun", lambda line: (line[0], line[len(line) - int(line[2]) :])))

    def synset(line: list[str]) -> Synset:
        words = line[4 : 4 + 2 * int(line[3], 16) : 2]
        name, above = _hypernyms(line)
        return Synset(name, tuple((word, senses.get(word.lower(), []).index(line[0]) + 1) for word in words), above)

    return _entries(folder / "data.noun", synset)


def licence(folder: Path) -> str:
    """WordNet's licence notice, which has to be on every copy: the lines at the head of data.noun, without numbers."""
    with (folder / "data.noun").open(encoding="utf-8", errors="replace") as file:
        lines = itertools.takewhile(lambda line: line.startswith(" "), file)
        return "".join(f"{line.strip().partition(' ')[2].strip()}\n" for line in lines)


def _hypernyms(line: list[str]) -> tuple[str, tuple[str, ...]]:
    """One line of data.noun: a synset and its hypernyms."""
    at = 4 + 2 * int(line[3], 16)  # after the words, each with a number
    pointers = line[at + 1 :][: 4 * int(line[at])]  # each a sign, a synset, its part of speech, the words meant
    if len(pointers) != 4 * int(line[at]):
        raise ValueError("pointers are missing")
    above = (synset for sign, synset in zip(pointers[::4], pointers[1::4], strict=True) if sign in ("@", "@i"))
    return f"n{int(line[0]):08d}", tuple(f"n{int(synset):08d}" for synset in above)


def _entries(path: Path, entry: Callable[[list[str]], T]) -> Iterator[T]:
    """What `entry` makes of the words of each line, but for the licence, which is indented."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                if line.startswith(" "):
                    continue
                try:
                    yield entry(line.split())
                except (ValueError, IndexError):
                    raise UserError(f"{path}:{number} is no line of WordNet's: give WordNet's own file") from None
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): give --wordnet the folder of WordNet (Debian: wordnet-base)"
        ) from error
