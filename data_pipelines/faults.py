"""What can be wrong with a data set: a source raises the first fault of it, the doctor shows all."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Literal

from larvseg_jax.errors import DataError


@dataclasses.dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
      kind: key of KINDS.
      what: one line with file and value.
      remedy: what to do about it; "" where that of the kind says all.
      among: how many others have the same fault, in brackets; said where the first stands for all of them.
    """

    kind: str
    what: str
    remedy: str = ""
    among: str = ""

    @classmethod
    def of(cls, error: DataError) -> Fault:
        """The fault that was raised, without the traceback that keeps its pictures in memory."""
        return cls(error.kind, error.what, error.remedy)

    def error(self) -> DataError:
        """The fault as an exception."""
        what = f"{self.what} {self.among}" if self.among else self.what
        return DataError(self.kind, what, self.remedy or KINDS[self.kind].remedy)


def raise_first(faults: Iterable[Fault]) -> None:
    """Raises the first of the faults that stop a run.

    Raises:
      DataError: there is one.
    """
    for fault in faults:
        if KINDS[fault.kind].level == "error":
            raise fault.error()


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of fault.

    Attributes:
      level: "error": the run does not start, or stops; "warning": it goes on.
      heading: what is wrong, for any number of cases.
      remedy: what to do about it.
    """

    level: Literal["warning", "error"]
    heading: str
    remedy: str


KINDS = {
    "files": Kind("error", "files missing or out of place", "the run does not start: complete or correct the folder"),
    "features": Kind("error", "features missing in the prepared set", "the run does not start: prepare it anew"),
    "spare mask": Kind("warning", "masks without photo", "they are not used: is the photo missing?"),
    "unlisted": Kind("warning", "pictures that the list does not name", "they are not used: add them to it"),
    "not downloaded": Kind("warning", "pictures of the list that are not there", "the others are used"),
    "unreadable": Kind(
        "error", "cannot be read", "the run stops at the first it draws (see data.on_error): replace or remove them"
    ),
    "value": Kind("error", "mask values that are no class", "the run stops at the first: correct mask or class list"),
    "meaning": Kind("error", "masks whose values mean something else", "the run does not start: give them in the list"),
    "lossy": Kind("error", "masks smeared by JPEG or resizing", "the run stops at the first: export them anew as PNG"),
    "coloured": Kind(
        "error", "coloured masks", "the run stops at the first: give the classes' colours in classes.json"
    ),
    "size": Kind("error", "photo and mask of different size", "the run stops at the first: replace one of the two"),
    "turned": Kind(
        "warning", "photos that an EXIF tag turns", "do their masks fit? See the sheet, or save them upright"
    ),
    "few bits": Kind("warning", "photos of 16 bits that use fewer", "they are read brighter, by the bits they use"),
    "tag": Kind("error", "image labels that are no class", "the run does not start or stops: correct them"),
    "many tags": Kind("error", "photos with more tags than max_labels", "the run stops at the first: raise max_labels"),
    "empty": Kind("warning", "masks without a class of the stream", "nothing in them counts: is the class list right?"),
    "untagged": Kind("warning", "photos without any tag of the stream", "they only teach what is not there"),
    "no caption": Kind("warning", "photos without a caption", "they are not used: add one, or take them out"),
    "empty caption": Kind("warning", "photos that have an empty caption", "it is not used"),
    "same caption": Kind("warning", "photos that have a caption twice", "it is drawn twice as often: is it meant?"),
    "contradiction": Kind("warning", "masks that lack a class of the tags", "swapped or shifted ids? See the sheet"),
}
"""Every kind of Fault."""
