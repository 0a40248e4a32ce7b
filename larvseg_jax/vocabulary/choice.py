"""From what a user writes to classes of a vocabulary (docs/vocabulary.md).

A text may be, and is taken for the first of these that it is:

    dog                  the name of a class, as it stands
    puppy                another name that the vocabulary has for one (`Vocabulary.aliases`)
    DOG, traffic_light   a name but for capitals, underscores and hyphens
    @names.txt           a file with a text per line, not separated at commas; or the path of one
    ade20k_150           a class list of the package: those of its classes that the vocabulary has
    n02084071, dog.n.01  a synset of WordNet, and everything below it
    dog/                 the same by a word, in the first of its senses that fits (synsets.py) and has classes
    domestic dog         a synonym: another word for the synset of a class, in the first of its senses that has one
    cat,dog              several of these; a text of which the whole is a name or a file is not separated

A synset stands for its whole branch, of which the class of the synset itself, if there is one, is a part. Which synsets
the classes mean is known from class lists, or guessed from their names (synsets.py says how).
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary.class_lists import class_list, keys
from larvseg_jax.vocabulary.hierarchy import Hierarchy, wordnet
from larvseg_jax.vocabulary.synsets import sense_that_fits, synsets_of
from larvseg_jax.vocabulary.vocabulary import Vocabulary


class Chosen(NamedTuple):
    """A class, and what in the texts it was chosen for: "name", "below dog.n.01", ..."""

    name: str
    why: str


def choose(
    texts: Sequence[str] | None, vocabulary: Vocabulary, exclude: Sequence[str] = (), lists: Sequence[str] = ()
) -> tuple[Chosen, ...]:
    """The classes that are meant, in order of mention, those of one text in the vocabulary's; each once.

    Args:
      texts: see above; None: all classes.
      vocabulary: of the model.
      exclude: texts of the same kinds; what they mean is left out.
      lists: the class lists that the vocabulary was made of (`class_lists.lists` of its config), if it was.

    Raises:
      UserError: a text means no class, with what may be meant; a file cannot be read; nothing is left.
    """
    names = Names(vocabulary, lists)
    found = [Chosen(name, "all") for name in vocabulary.classes] if texts is None else list(names.of(texts))
    without = {chosen.name for chosen in names.of(exclude)}
    first = {chosen.name: chosen for chosen in reversed(found) if chosen.name not in without}
    kept = tuple(first[name] for name in dict.fromkeys(chosen.name for chosen in found) if name in first)
    if not kept:
        raise UserError("no class is left: exclude fewer" if found else "no class is named: give at least one")
    return kept


class Names:
    """All ways to call the classes of a vocabulary. WordNet is only read for a text that needs it.

    Args:
      vocabulary: the classes.
      lists: the class lists it was made of, if it was.
    """

    def __init__(self, vocabulary: Vocabulary, lists: Sequence[str] = ()) -> None:
        self._classes = vocabulary.classes
        self._own = set(vocabulary.classes)
        self._aliases = dict(vocabulary.aliases)
        self._background = vocabulary.background
        self._lists = lists

    def of(self, texts: Sequence[str]) -> Iterator[Chosen]:
        """The classes that texts mean; some perhaps several times. UserError as `choose`."""
        for text in texts:
            whole = self._by_name(text)
            if not whole and "," in text and _is_file(text.removeprefix("@")):
                whole = self._of_file(text)
            parts = [text] if whole or "," not in text else text.split(",")
            try:
                for part in parts:
                    yield from whole or self._of_text(part.strip())
            except UserError:
                torn = [name for name in self._classes if "," in name and name in text] if len(parts) > 1 else []
                if not torn:
                    raise
                raise UserError(
                    f"the name {torn[0]!r} has a comma: give each class by a flag of its own, "
                    f'--classes="{torn[0]}" --classes=...'
                ) from None

    def branch(self, synset: str) -> tuple[str, ...]:
        """The classes that are a synset or something below it, whatever the way."""
        below = self.hierarchy.below(synset)
        return tuple(name for name in self._classes if not below.isdisjoint(self.synsets[name]))

    @functools.cached_property
    def hierarchy(self) -> Hierarchy:
        """WordNet."""
        return wordnet()

    @functools.cached_property
    def synsets(self) -> dict[str, tuple[str, ...]]:
        """WordNet ids of each class (synsets.py)."""
        found = synsets_of(self._classes, self._lists, self.hierarchy)
        return {**found, self._background: ()} if self._background else found

    def _of_text(self, text: str, *, files: bool = True) -> list[Chosen]:
        """The classes that one text means that is not to be separated. `files`: it may be one."""
        found = self._by_name(text) or self._by_spelling(text) or (self._of_file(text) if files else [])
        found = found or self._of_list(text) or self._of_synset(text) or self._of_synonym(text)
        if not found:
            raise UserError(f"class {text!r} is not in the vocabulary: {self._hint(text)}")
        return found

    def _by_name(self, text: str) -> list[Chosen]:
        if text in self._own:
            return [Chosen(text, "name")]
        return [Chosen(self._aliases[text], f"alias {text}")] if text in self._aliases else []

    def _by_spelling(self, text: str) -> list[Chosen]:
        found = self._spellings.get(plain(text), ())
        if len(found) > 1:
            raise UserError(f"{text!r} names {len(found)} classes ({', '.join(found[:5])}): give one of these")
        return [Chosen(name, f"name {text}") for name in found]

    def _of_file(self, text: str) -> list[Chosen]:
        if not text.startswith("@") and not (re.search(r"[./\\]", text) and _is_file(text)):
            return []
        path = Path(text.removeprefix("@"))
        try:
            lines = path.expanduser().read_text("utf-8-sig").splitlines()
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: ~ of a user that there is not
            reason = getattr(error, "strerror", None) or ("no text in UTF-8" if path.is_file() else "there is none")
            raise UserError(f"{text}: the file cannot be read ({reason}): give a text file, a name per line") from error
        found = []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                found += self._by_name(line) or self._of_text(line.strip(), files=False)
            except UserError as error:
                raise UserError(f"{path}:{number}: {error}") from None
        if not found:
            raise UserError(f"{path} names no class: give a text file, a name per line")
        return [chosen._replace(why=f"{chosen.why}, {path.name}") for chosen in found]

    def _of_list(self, text: str) -> list[Chosen]:
        if text not in keys():
            return []
        return [Chosen(name, f"list {text}") for name in self.in_list(text)[0]]

    def in_list(self, key: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The vocabulary's names of a class list's classes, in its order; and the ids of those that it has not.

        A class is found by its id or title, or else by its synsets, those of the list or those of its name.
        """
        bearers: dict[str, list[str]] = {}
        for name in self._classes:
            for called in {name, re.sub(r" \([^()]*\)$", "", name)}:
                bearers.setdefault(called, []).append(name)
        found: dict[str, None] = {}
        missing = []
        classes = class_list(key)
        for i, title, synsets in zip(classes.ids, classes.titles, classes.synsets, strict=True):
            exact = [name for name in (f"{title} ({i})", f"{title} ({key})", i) if name in self._own][:1]
            titled = exact or bearers.get(title, [])
            if len(titled) != 1:
                meant = synsets or synsets_of((title,), (), self.hierarchy)[title]
                same = [name for synset in meant for name in self._with_synset.get(synset, ())]
                titled = [name for name in titled if name in same] or same or titled
            found |= dict.fromkeys(titled)
            missing += [] if titled else [i]
        return tuple(found), tuple(missing)

    @functools.cached_property
    def _with_synset(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, synsets in self.synsets.items():
            for synset in synsets:
                found.setdefault(synset, []).append(name)
        return found

    def _of_synset(self, text: str) -> list[Chosen]:
        """A branch: of a synset, or with a slash at the end of a word's sense."""
        word = text.removesuffix("/")
        synset = self.hierarchy.find(word)
        if synset is None and word != text:
            senses = self.hierarchy.senses(word)
            likely = sense_that_fits(word, self.hierarchy)
            ordered = sorted(senses, key=lambda sense: sense != likely)
            synset = next((sense for sense in ordered if self.branch(sense)), None)
        if synset is None:
            return []
        return [Chosen(name, f"below {self.hierarchy.name(synset)}") for name in self.branch(synset)]

    def _of_synonym(self, text: str) -> list[Chosen]:
        """The classes of the first sense of a word that has one."""
        for sense in self.hierarchy.senses(text):
            found = self._with_synset.get(sense, ())
            if found:
                return [Chosen(name, f"synonym {text} ({self.hierarchy.name(sense)})") for name in found]
        return []

    def _hint(self, text: str) -> str:
        """What may be meant by a text that means nothing."""
        if text in keys():
            return "it has no class of this list"
        known = self.hierarchy.find(text.removesuffix("/"))
        for synset in (known,) if known else self.hierarchy.senses(text.removesuffix("/")):
            if self.branch(synset):
                break  # which is among what is near
            for up in reversed(self.hierarchy.path(synset)[:-1]):
                if up in self._with_synset:
                    return f"{self.hierarchy.name(synset)} is a kind of its class {self._with_synset[up][0]!r}"
        called: dict[str, str] = {}
        synsets = {synset for found in self.synsets.values() for synset in found}
        branches = {above for synset in synsets for above in self.hierarchy.above(synset)}
        for synset in sorted(branches):
            end = "" if synset in synsets else "/"
            called.setdefault(self.hierarchy.name(synset), self.hierarchy.name(synset))
            called |= {
                plain(word): f"{word}{end}"
                for word in self.hierarchy.words(synset)
                if not end or plain(word) not in called
            }
        called |= {plain(name): name for name in (*keys(), *self._aliases, *self._classes)}
        close = difflib.get_close_matches(plain(text), called, n=3)
        return (
            f"did you mean {', '.join(called[key] for key in close)}?" if close else f"it has {len(self._own)} classes"
        )

    @functools.cached_property
    def _spellings(self) -> dict[str, list[str]]:
        """Names by how they are written plainly, also without what was added to keep two of them apart."""
        found: dict[str, list[str]] = {}
        for name in self._classes:
            for called in {plain(name), plain(re.sub(r" \([^()]*\)$", "", name))}:
                found.setdefault(called, []).append(name)
        return found


def plain(text: str) -> str:
    """A name without capitals, underscores and hyphens."""
    return re.sub(r"[\s_-]+", " ", text.casefold()).strip()


def _is_file(text: str) -> bool:
    try:
        return Path(text).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):  # a name that no file can have
        return False
