"""WordNet's nouns: which words mean a synset, what it is a kind of, what its kinds are.

They ship with the package, as one file of WordNet 3.0 (vocabulary/wordnet/nouns.txt.gz, whose licence notice is beside
it and in it; data_pipelines/pack_wordnet.py says how it is made and what its lines mean). It is read on first use.

A synset may be a kind of several others, a dog of canine and of domestic animal. `below` and `above` follow all of
them; where one way is needed, as for a depth, it is that of the first hypernym, which WordNet's authors put first.
"""

from __future__ import annotations

import collections
import functools
import gzip
import itertools
import re
from collections.abc import Iterable, Mapping
from importlib import resources

FILE = resources.files("larvseg_jax.vocabulary") / "wordnet" / "nouns.txt.gz"


class Hierarchy:
    """The nouns of a WordNet.

    Args:
      text: of the file, uncompressed.

    Attributes:
      hypernyms: WordNet id of each synset ("n02084071") -> those of what it is a kind, or an instance, of.
    """

    def __init__(self, text: str) -> None:
        fields = text.partition("\n\n")[2].rstrip("\n").replace("\n", "\t").split("\t")
        ids = [f"n{number:08d}" for number in itertools.accumulate(map(int, fields[::3]))]
        self.hypernyms: Mapping[str, tuple[str, ...]] = {
            synset: tuple([ids[place - int(up)] for up in above.split(",")]) if above else ()
            for place, (synset, above) in enumerate(zip(ids, fields[1::3], strict=True))
        }
        self._words = dict(zip(ids, fields[2::3], strict=True))

    def __contains__(self, synset: object) -> bool:
        return synset in self.hypernyms

    def __len__(self) -> int:
        return len(self.hypernyms)

    def words(self, synset: str) -> tuple[str, ...]:
        """The words that mean a synset, with blanks, the first by which it is called."""
        return tuple(word.partition("%")[0].replace("_", " ") for word in self._words[synset].split(" "))

    def name(self, synset: str) -> str:
        """What a synset is called: its first word, that it is a noun, and which sense of the word: "dog.n.01"."""
        word, _, sense = self._words[synset].partition(" ")[0].partition("%")
        return f"{word.lower()}.n.{int(sense or 1):02d}"

    def senses(self, word: str) -> tuple[str, ...]:
        """The synsets that a word means, in upper or lower case, the most frequent meaning first; () if it is none."""
        senses = self._senses.get(word.lower().replace(" ", "_"), {})
        return tuple(senses[number] for number in sorted(senses))

    def find(self, text: str) -> str | None:
        """The id of a synset that is given by its id or by any of its names ("dog.n.01"); None if there is none."""
        if text in self.hypernyms:
            return text
        named = re.fullmatch(r"(.+)\.n\.(\d{1,3})", text)
        return self._senses.get(named[1].lower().replace(" ", "_"), {}).get(int(named[2])) if named else None

    def kinds(self, synset: str) -> tuple[str, ...]:
        """What is directly below a synset, in order of ids."""
        return tuple(self._hyponyms.get(synset, ()))

    def below(self, synset: str) -> frozenset[str]:
        """A synset and all that is a kind of it, whatever the way."""
        return self._reached(synset, self._hyponyms)

    def above(self, synset: str) -> frozenset[str]:
        """A synset and all that it is a kind of, whatever the way."""
        return self._reached(synset, self.hypernyms)

    def path(self, synset: str) -> tuple[str, ...]:
        """From the root down to a synset, by first hypernyms; the length less one is its depth."""
        found = [synset]
        while above := self.hypernyms[found[-1]]:
            found.append(above[0])
        return tuple(reversed(found))

    @property
    def all_words(self) -> Iterable[str]:
        """All words there are, in lower case, with underscores."""
        return self._senses.keys()

    @functools.cached_property
    def _senses(self) -> dict[str, dict[int, str]]:
        """Word in lower case -> which sense -> synset."""
        found: dict[str, dict[int, str]] = {}
        for synset, words in self._words.items():
            for word in words.lower().split(" "):
                lemma, _, sense = word.partition("%")
                senses = found.get(lemma)
                if senses is None:
                    found[lemma] = {int(sense or 1): synset}
                else:
                    senses[int(sense or 1)] = synset
        return found

    @functools.cached_property
    def _hyponyms(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = collections.defaultdict(list)
        for synset, above in self.hypernyms.items():
            for up in above:
                found[up].append(synset)
        return dict(found)

    @staticmethod
    def _reached(synset: str, next_ones: Mapping[str, Iterable[str]]) -> frozenset[str]:
        found, waiting = {synset}, [synset]
        while waiting:
            further = set(next_ones.get(waiting.pop(), ())) - found
            found |= further
            waiting += further
        return frozenset(found)


@functools.cache
def wordnet() -> Hierarchy:
    """The nouns of WordNet 3.0, from the package."""
    return Hierarchy(gzip.decompress(FILE.read_bytes()).decode())
