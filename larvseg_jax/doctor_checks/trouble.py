"""What can be wrong with photos, masks and tags."""

from __future__ import annotations

import dataclasses

from larvseg_jax.doctor_checks.findings import Level


@dataclasses.dataclass(frozen=True)
class Trouble:
    """One fault: its kind, and one line with file and value."""

    kind: str
    text: str


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of fault: how grave, what it is, and the remedy."""

    level: Level
    heading: str
    remedy: str


KINDS = {
    "files": Kind("error", "files missing or out of place", "the run does not start: complete or correct the folder"),
    "spare mask": Kind("warning", "masks without photo", "they are not used: is the photo missing?"),
    "unreadable": Kind("error", "cannot be read", "the run stops at the first it draws: replace or remove them"),
    "value": Kind("error", "mask values that are no class", "the run stops at the first: correct mask or class list"),
    "size": Kind("error", "photo and mask of different size", "the run stops at the first: replace one of the two"),
    "tag": Kind("error", "image labels that are no class", "the run does not start or stops: correct them"),
    "many tags": Kind("error", "photos with more tags than max_labels", "the run stops at the first: raise max_labels"),
    "empty": Kind("warning", "masks without a class of the stream", "nothing in them counts: is the class list right?"),
    "untagged": Kind("warning", "photos without any tag of the stream", "they only teach what is not there"),
    "contradiction": Kind("warning", "masks that lack a class of the tags", "swapped or shifted ids? See the sheet"),
}
"""Every kind of Trouble."""
