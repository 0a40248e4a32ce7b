"""Which release of ImageNet-21K a set of synsets is."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from larvseg_jax.vocabulary.class_lists import class_list

WINTER_2021_SYNSETS = 19_167
"""The winter-2021 release dropped synsets of fall 2011; its list is not public without an account, its size is."""
_WINTER_2021_PHOTOS = 13_153_500


@dataclasses.dataclass(frozen=True)
class Release:
    """A release, found or, for a partial download, the closest one.

    Attributes:
      name: "fall-2011", "winter-2021", "21k-p fall-2011", "21k-p winter-2021", "larvseg 11k" or "partial".
      photos: published number of training photos, None where none is.
      closest: for "partial": the release that differs in the fewest synsets (of those with a known list).
      missing: for "partial": its synsets that are not there, ascending.
    """

    name: str
    photos: int | None = None
    closest: str | None = None
    missing: tuple[str, ...] = ()


# ImageNet-21K-P: number of train photos, as its authors publish it with their processing scripts.
_LISTS = {
    "fall-2011": ("imagenet_21k", 14_197_122),
    "21k-p fall-2011": ("imagenet_21k_p_fall11", 11_797_632),
    "21k-p winter-2021": ("imagenet_21k_p_winter21", 11_060_223),
    "larvseg 11k": ("imagenet_11k", None),
}


def release_of(present: Collection[str]) -> Release:
    """The release with exactly these synsets; those that are not in ImageNet-21K do not count.

    Winter 2021 is known by its number of synsets, all of fall 2011 and among them all of its 21K-P selection.
    """
    fall = set(class_list("imagenet_21k").ids)
    # One synset of the authors' 11,276 is in no release of 21,841: it does not count either.
    lists = {name: fall & set(class_list(key).ids) for name, (key, _) in _LISTS.items()}
    found = fall & set(present)
    for name, synsets in lists.items():
        if found == synsets:
            return Release(name, _LISTS[name][1])
    if len(found) == WINTER_2021_SYNSETS and lists["21k-p winter-2021"] <= found:
        return Release("winter-2021", _WINTER_2021_PHOTOS)
    closest = min(lists, key=lambda name: len(found ^ lists[name]))
    return Release("partial", closest=closest, missing=tuple(sorted(lists[closest] - found)))
