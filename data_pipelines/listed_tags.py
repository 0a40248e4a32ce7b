"""Tags beside masks: a list by the ids of photos, such as pseudo labels or the nouns of captions.

A tags.json or tags.csv (tag_lists.py) whose files are the ids of a source's photos; of those it leaves out nothing is
known, and they have no tags.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import SupportsIndex

import numpy as np
from jaxtyping import Int32

from data_pipelines.examples import Example, Source
from data_pipelines.tag_lists import read_tag_list
from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary import IGNORE_LABEL, LabelSet


@dataclasses.dataclass(frozen=True)
class WithListedTags:
    """A source whose examples have tags besides what they had.

    Attributes:
      source: gives the examples.
      tags: ascending columns by a photo's id.
    """

    source: Source
    tags: dict[str, Int32[np.ndarray, " k"]]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: SupportsIndex) -> Example:
        example = self.source[index]
        return {**example, "tags": self.tags.get(example["id"], np.zeros(0, np.int32))}


def with_listed_tags(source: Source, file: Path, label_set: LabelSet) -> Source:
    """The source, its photos with the tags of a list; tags that the stream does not know disappear.

    Raises:
      UserError: the list cannot be read, has no class of the stream, or none of some photos of the source.
    """
    if not file.is_file():
        raise UserError(f"there is no {file}: write it (docs/pseudo_labels.md), or correct source.tags_file")
    listed, _ = read_tag_list(file)  # photos without tags are no fault here
    columns = {name: label_set.column(name) for names in listed.values() for name in names}
    if columns and all(column == IGNORE_LABEL for column in columns.values()):
        shown = ", ".join(sorted(columns)[:3])
        raise UserError(f"{file}: none of its tags ({shown}, ...) is among the stream's {len(label_set)} classes")
    tags = {
        photo: np.array(sorted({columns[n] for n in names} - {IGNORE_LABEL}), np.int32)
        for photo, names in listed.items()
    }
    opened = WithListedTags(source, tags)
    _check_ids(opened, file)
    return opened


def _check_ids(opened: WithListedTags, file: Path) -> None:
    """UserError if the list speaks of none of the photos at a few places of the source."""
    looked_at = np.unique(np.linspace(0, len(opened) - 1, 8).astype(int)) if len(opened) else ()
    ids = [opened.source[int(i)]["id"] for i in looked_at]
    if ids and not any(photo in opened.tags for photo in ids):
        raise UserError(
            f"{file} has none of the photos {', '.join(map(repr, ids[:3]))}, ...: "
            "its files must be the ids of the stream's photos"
        )
