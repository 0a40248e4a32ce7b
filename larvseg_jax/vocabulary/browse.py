"""Looking around in vocabularies: what a word finds, what is in a class list, what is below a synset. Lines of text."""

from __future__ import annotations

import collections
import difflib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary.choice import Names, plain
from larvseg_jax.vocabulary.class_lists import class_list, keys, raw
from larvseg_jax.vocabulary.hierarchy import Hierarchy
from larvseg_jax.vocabulary.synsets import sense_that_fits, synsets_of
from larvseg_jax.vocabulary.vocabulary import Vocabulary


class Entry(NamedTuple):
    """A class that is known somewhere.

    Attributes:
      name: what it is called there.
      synsets: WordNet ids, known or guessed (synsets.py).
      where: the class lists that have it; or of a model's class "base", "novel", ... or "".
    """

    name: str
    synsets: tuple[str, ...]
    where: str


def entries_of_model(vocabulary: Vocabulary, names: Names) -> list[Entry]:
    """The classes of a model."""
    groups = vocabulary.groups(vocabulary.classes)
    return [Entry(name, names.synsets[name], group) for name, group in zip(vocabulary.classes, groups, strict=True)]


def entries_of_lists(hierarchy: Hierarchy) -> list[Entry]:
    """The classes of all lists of the package; those of one title and one synset are one."""
    found: dict[tuple[str, str], tuple[str, tuple[str, ...], list[str]]] = {}
    for key in keys():
        classes = class_list(key)
        guessed = synsets_of([t for t, s in zip(classes.titles, classes.synsets, strict=True) if not s], (), hierarchy)
        for title, known in zip(classes.titles, classes.synsets, strict=True):
            synsets = tuple(synset for synset in known if synset in hierarchy) or guessed.get(title, ())
            entry = found.setdefault((plain(title), (*synsets, "")[0]), (title, synsets, []))
            if key not in entry[2]:
                entry[2].append(key)
    return [Entry(name, synsets, _few(where)) for name, synsets, where in found.values()]


def search(text: str, entries: Sequence[Entry], hierarchy: Hierarchy, most: int) -> list[str]:
    """The classes whose names, or words in WordNet, have the text in them, the nearest first; and the branches of it.

    Args:
      text: part of a word, or several words.
      entries: what is searched.
      hierarchy: WordNet.
      most: how many classes at most.

    Raises:
      UserError: nothing has it; with what may be meant.
    """
    wanted = plain(text)
    found: list[tuple[int, int, str]] = []
    for place, (name, synsets, where) in enumerate(entries):
        words = [word for synset in synsets for word in hierarchy.words(synset)]
        nearness = _nearness(wanted, name, words)
        if nearness is not None:
            found.append((nearness, place, _line(name, synsets, where, hierarchy, words)))
    branches = [
        f"{hierarchy.name(synset)}  {_classes(count)}: {', '.join(hierarchy.words(synset))}"
        for synset in hierarchy.senses(text)
        if (count := _below(synset, entries, hierarchy))
    ]
    if not found and not branches:
        candidates = {plain(name): name for name, *_ in entries}
        candidates |= {plain(word): word for _, synsets, _ in entries for s in synsets for word in hierarchy.words(s)}
        close = difflib.get_close_matches(wanted, candidates, n=3)
        hint = f"did you mean {', '.join(candidates[key] for key in close)}?" if close else "search for another word"
        raise UserError(f"nothing here is called {text!r}: {hint}")
    lines = [line for *_, line in sorted(found)]
    more = [f"... and {len(lines) - most:,} more: --most={len(lines)}"] if len(lines) > most else []
    return [*lines[:most], *more, *(["branches of WordNet:", *(f"  {line}" for line in branches)] if branches else [])]


def listing(key: str, hierarchy: Hierarchy) -> list[str]:
    """The classes of a list: number, title, id where it is another, synsets."""
    classes = class_list(key)
    lines = [f"{key}: {raw(key)['name']}"]
    for number, (i, title, synsets) in enumerate(zip(classes.ids, classes.titles, classes.synsets, strict=True)):
        known = [hierarchy.name(synset) for synset in synsets if synset in hierarchy]
        lines.append("  ".join([f"{number:>5}", title, *([i] if i != title else []), *known]))
    return lines


def listing_in(key: str, names: Names) -> list[str]:
    """The classes of a list that a model has, by the model's names; and which it has not."""
    found, missing = names.in_list(key)
    lines = [f"{key}: {raw(key)['name']}: {len(found)} classes of the model"]
    lines += [f"  {name}" for name in found]
    return lines + ([f"not in the model: {', '.join(missing)}"] if missing else [])


def listing_of(entries: Sequence[Entry], hierarchy: Hierarchy) -> list[str]:
    """The classes of a model in its order, with synsets and groups."""
    return [_line(*entry, hierarchy, ()) for entry in entries]


def tree(text: str, entries: Sequence[Entry], hierarchy: Hierarchy, depth: int) -> list[str]:
    """The branch of a synset with the number of classes in each part of it; parts without any are left out.

    What is a kind of several synsets is shown below each, and counted once in what is above all of them.

    Args:
      text: a synset ("dog.n.01", "n02084071"), or a word, of which the first sense that fits and has classes counts.
      entries: what is counted.
      hierarchy: WordNet.
      depth: how far down.

    Raises:
      UserError: there is no such synset or word, or no class below it.
    """
    counts: collections.Counter[str] = collections.Counter()
    classes: dict[str, list[str]] = collections.defaultdict(list)
    for name, synsets, _ in entries:
        counts.update(set().union(*map(hierarchy.above, synsets)))
        for synset in synsets:
            classes[synset].append(name)
    word = text.removesuffix("/")
    known = hierarchy.find(word)
    senses = (known,) if known else hierarchy.senses(word)
    if not senses:
        near = [w for w in hierarchy.all_words if abs(len(w) - len(word)) < 3 and w[:1] == word[:1].lower()]
        close = difflib.get_close_matches(word.lower().replace(" ", "_"), near, n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "give one such as dog.n.01, or a word"
        raise UserError(f"{text!r} is no synset of WordNet 3.0 and no noun that it has: {hint}")
    likely = sense_that_fits(word, hierarchy)
    root = next((s for s in sorted(senses, key=lambda sense: sense != likely) if counts[s]), None)
    if root is None:
        above = next((up for up in reversed(hierarchy.path(senses[0])) if counts[up]), None)
        hint = (
            f"the nearest above with one is {hierarchy.name(above)}" if above else "no class here has a synset above it"
        )
        raise UserError(f"no class is {text} or below it: {hint}")

    def lines(synset: str, level: int) -> Iterator[str]:
        own = f"  = {', '.join(dict.fromkeys(classes[synset]))}" if synset in classes else ""
        yield f"{'  ' * level}{hierarchy.name(synset)}  {counts[synset]:,}{own}"
        if level < depth:
            for kind in sorted(hierarchy.kinds(synset), key=lambda kind: (-counts[kind], hierarchy.name(kind))):
                if counts[kind]:
                    yield from lines(kind, level + 1)

    return list(lines(root, 0))


def _classes(count: int) -> str:
    return f"{count:,} {'class' if count == 1 else 'classes'}"


def _few(texts: Sequence[str], most: int = 3) -> str:
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


def _below(synset: str, entries: Sequence[Entry], hierarchy: Hierarchy) -> int:
    below = hierarchy.below(synset)
    return sum(not below.isdisjoint(entry.synsets) for entry in entries)


def _nearness(wanted: str, name: str, words: Sequence[str]) -> int | None:
    """0 for the name itself, 1 for a synonym, 2 and 3 where these have it as a word, 4 anywhere; None if nowhere."""
    texts = [plain(name), *map(plain, words)]
    if wanted in texts:
        return min(texts.index(wanted), 1)
    whole = [f" {wanted} " in f" {text.replace(',', ' ')} " for text in texts]
    if any(whole):
        return 2 + min(whole.index(True), 1)
    return 4 if any(wanted in text for text in texts) else None


def _line(name: str, synsets: Sequence[str], where: str, hierarchy: Hierarchy, words: Sequence[str]) -> str:
    others = [word for word in dict.fromkeys(words) if plain(word) != plain(name)]
    also = [f"also {', '.join(others)}"] if others else []
    return "  ".join([name, *map(hierarchy.name, synsets), *also, *([f"[{where}]"] if where else [])])
