"""The class lists of the data sets, as they ship with the package (larvseg_jax/vocabulary/lists/*.json)."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
from importlib import resources
from typing import Any

from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary.base_novel import BaseNovel

_FOLDER = resources.files("larvseg_jax.vocabulary") / "lists"


@dataclasses.dataclass(frozen=True)
class ClassList:
    """The classes of one data set in label order.

    Attributes:
      key: name of the file.
      ids: unique names, which prepared data carries: the data set's own, or WordNet ids for ImageNet.
      titles: names to show and to match other lists by; several classes may share one (COCO-Stuff's kinds
        of wall are all "wall", as in the authors' training; "crane" is a bird and a machine).
      synsets: WordNet ids of each class, none where none is known.
      other: what prepared data calls pixels that are labelled as none of the classes; "" if it ignores them.
    """

    key: str
    ids: tuple[str, ...]
    titles: tuple[str, ...]
    synsets: tuple[tuple[str, ...], ...]
    other: str = ""

    @property
    def stored(self) -> tuple[str, ...]:
        """The names in prepared data, by class id: `ids` and, where there is one, `other`."""
        return (*self.ids, self.other) if self.other else self.ids

    def __len__(self) -> int:
        return len(self.ids)

    def base_novel(self, definition: str) -> BaseNovel:
        """Base and novel classes of ADE20K against COCO-Stuff, by how names are compared.

        "processed": the names that the released training shares rows by (63/87 of 150, 94/753 of 847);
        "split": COCO-Stuff's names cut at the first hyphen, which the paper's printed columns follow (58/92,
        92/755); also "raw", "things80" and "processed_hyphen_as_space".
        """
        overlaps = raw("overlaps")
        against = overlaps.get({"ade20k_150": "A150", "ade20k_full_847": "A847"}.get(self.key, ""), {})
        if definition not in overlaps["definitions"] or definition not in against:
            known = ", ".join(sorted(overlaps["definitions"]))
            raise UserError(
                f"no base/novel definition {definition!r} for {self.key}: ade20k_150 and ade20k_full_847 have {known}"
            )
        base = frozenset(self.ids[i] for i in against[definition]["base_indices"])
        return BaseNovel(f"{len(base)}/{len(self) - len(base)}", base)

    def index(self, name: str) -> int:
        """Label of a class given by id, title or synset; UserError if there is none, or several."""
        for table in self._tables:
            found = table.get(name, ())
            if len(found) > 1:
                candidates = ", ".join(self.ids[i] for i in found[:5])
                raise UserError(f"{name!r} names {len(found)} classes of {self.key} ({candidates}): give one of these")
            if found:
                return found[0]
        close = difflib.get_close_matches(name, {*self.ids, *self.titles}, n=3)
        hint = f"did you mean {', '.join(close)}?" if close else f"it has {len(self)} classes"
        raise UserError(f"{name!r} is no class of {self.key}: {hint}")

    @functools.cached_property
    def _tables(self) -> tuple[dict[str, list[int]], ...]:
        tables: tuple[dict[str, list[int]], ...] = ({}, {}, {})
        for label, names in enumerate(zip(self.ids, self.titles, self.synsets, strict=True)):
            for table, keys in zip(tables, ((names[0],), (names[1],), names[2]), strict=True):
                for key in keys:
                    table.setdefault(key, []).append(label)
        return tables


@functools.cache
def raw(key: str) -> dict[str, Any]:
    """A file as it is; UserError names the files there are."""
    try:
        return json.loads((_FOLDER / f"{key}.json").read_text("utf-8"))
    except OSError:
        raise UserError(f"there is no class list {key!r}: use one of {', '.join(keys())}") from None


@functools.cache
def keys() -> tuple[str, ...]:
    """The class lists that there are, by name."""
    files = (name.name.removesuffix(".json") for name in _FOLDER.iterdir())
    return tuple(sorted(name for name in files if not name.startswith(("union_", "overlaps", "splits"))))


@functools.cache
def class_list(key: str) -> ClassList:
    """The class list of a data set."""
    content = raw(key)
    names = tuple(content["classes"])
    wnids: list = content.get("wnids") or [None] * len(names)
    if key.startswith("imagenet"):
        return ClassList(key, tuple(wnids), names, tuple((w,) for w in wnids), content.get("other", ""))
    synsets = tuple(tuple(w or ()) for w in wnids)
    return ClassList(key, names, tuple(content.get("processed_classes", names)), synsets)


def as_original(key: str) -> ClassList:
    """A class list with the titles of one of the authors' union files, "<union file>:<class list>".

    Their union of ImageNet and COCO-Stuff merges synsets of one name and renames some.
    """
    union, _, name = key.partition(":")
    content, classes = raw(union), class_list(name)
    rows = content["label_to_union"].get(name)
    if rows is None:
        raise UserError(f"{union} does not unite {name}: it has {', '.join(content['label_to_union'])}")
    return dataclasses.replace(classes, titles=tuple(content["classes"][row] for row in rows))
