"""Which synsets of WordNet the classes of a vocabulary mean.

From the surest to the least sure:

1. the name is an id ("n02084071", as folders of ImageNet's pictures are called), or has one ("mouse (n02330245)");
2. the class lists that the vocabulary was made of know the synsets of the class, which bears their name or title;
3. WordNet has the name as a word: then the first sense that fits is taken. A sense fits if it is a physical entity and
   no process, and if WordNet writes the word with no other capitals: a "crane" is no Stephen Crane, and a "light"
   the lamp. If none fits, it is the first sense. This is a guess: a vocabulary that has the animal alone and calls it
   "bat" has the animal here, too, but one whose "mouse" lies beside a keyboard has the rodent.

Of a name with commas ("building, edifice") the first part counts that is a word, underscores and hyphens are blanks,
a plural in -s is looked for without it, "cell phone" also as "cellphone". A name that is nothing of this kind
("tvmonitor") has no synset.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from larvseg_jax.vocabulary.class_lists import as_original, class_list
from larvseg_jax.vocabulary.hierarchy import Hierarchy

PHYSICAL, PROCESS = "n00001930", "n00029677"
"""physical_entity.n.01, process.n.06: light is a process, a lamp is none."""


def synsets_of(names: Sequence[str], lists: Sequence[str], hierarchy: Hierarchy) -> dict[str, tuple[str, ...]]:
    """The synsets of each class.

    Args:
      names: of the classes.
      lists: keys of the class lists that the vocabulary was made of (`class_lists.lists` of its config).
      hierarchy: WordNet.

    Returns:
      name -> WordNet ids, the surest or first one first; () where none is known.
    """
    listed = _listed(lists)
    found = {}
    for name in names:
        given = re.findall(r"(?<!\w)n\d{8}(?!\w)", name)
        known = [synset for synset in (given or listed.get(name, ())) if synset in hierarchy]
        found[name] = tuple(dict.fromkeys(known)) or _of_word(name, hierarchy)
    return found


def sense_that_fits(word: str, hierarchy: Hierarchy) -> str | None:
    """The first sense of a word that fits (see above), or else its first; None if WordNet does not have the word."""
    senses = hierarchy.senses(word)
    for synset in senses:
        written = word.replace("_", " ")
        above = hierarchy.above(synset)
        if (
            PHYSICAL in above
            and PROCESS not in above
            and (written in hierarchy.words(synset) or written != word.lower())
        ):
            return synset
    return senses[0] if senses else None


def _of_word(name: str, hierarchy: Hierarchy) -> tuple[str, ...]:
    parts = [part.strip() for part in name.split(",")]
    spaced = [re.sub(r"[-_]+", " ", part) for part in parts]
    singular = [part.removesuffix("s") for part in spaced]
    for word in (*parts, *spaced, *singular, *(part.replace(" ", "") for part in spaced)):
        synset = sense_that_fits(word, hierarchy) if word else None
        if synset:
            return (synset,)
    return ()


def _listed(lists: Iterable[str]) -> Mapping[str, Sequence[str]]:
    """The synsets of class lists by all names that a row of their union may have (shared_rows.py)."""
    found: dict[str, list[str]] = {}
    for key in lists:
        classes = as_original(key) if ":" in key else class_list(key)
        for i, title, synsets in zip(classes.ids, classes.titles, classes.synsets, strict=True):
            for name in dict.fromkeys((i, title, f"{title} ({i})", f"{title} ({classes.key})")):
                found.setdefault(name, []).extend(synsets)
    return found
