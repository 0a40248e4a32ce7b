"""Which classes of a data set zero-shot protocols hold out, as they ship with the package (lists/splits.json)."""

from __future__ import annotations

import dataclasses

from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary.class_lists import class_list, raw


@dataclasses.dataclass(frozen=True)
class Split:
    """A data set's classes in two groups.

    Attributes:
      class_list: key of the data set's class list.
      seen, unseen: the ids of its classes, in the order of the list: base and novel ones here.
    """

    class_list: str
    seen: tuple[str, ...]
    unseen: tuple[str, ...]


def split_keys() -> tuple[str, ...]:
    """The splits that there are, by name."""
    return tuple(raw("splits")["splits"])


def split_of(key: str) -> Split:
    """A split by its name, such as "voc_15_5"; UserError names those there are."""
    try:
        stored = raw("splits")["splits"][key]
    except KeyError:
        raise UserError(f"there is no split {key!r}: use one of {', '.join(split_keys())}") from None
    ids, novel = class_list(stored["class_list"]).ids, set(stored["novel"])
    return Split(stored["class_list"], tuple(i for i in ids if i not in novel), tuple(i for i in ids if i in novel))
