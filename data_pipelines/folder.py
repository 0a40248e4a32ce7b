"""Photos, masks and image labels in a plain folder (its layouts: listing.py) as a source."""

from __future__ import annotations

from pathlib import Path
from typing import SupportsIndex

from data_pipelines.examples import Example, LabelMap, decoded
from data_pipelines.faults import raise_first
from data_pipelines.listing import list_folder
from data_pipelines.mask_evidence import mask_faults
from data_pipelines.picture_files import MAX_MEGAPIXELS
from larvseg_jax.vocabulary import LabelSet


class FolderSource:
    """One split of a folder as a random-access source of Examples.

    The constructor checks what needs no decoding (files there, labels within the class list), and whether the values
    of some masks can be those of the class list; all values and sizes are checked as each photo is read.

    Args:
      folder: the data folder.
      split: a folder in images/; with a splits.json, a key of it; dots go into nested objects
        ("suggested.train_masks").
      label_set: the stream's classes, matched by name with those of the folder.
      masks: give each Example its `label`.
      tags: give each Example its `tags`, from `image_labels` of splits.json.
      max_megapixels: the largest photo or mask that is decoded, millions of pixels.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        label_set: LabelSet,
        *,
        masks: bool,
        tags: bool,
        max_megapixels: int = MAX_MEGAPIXELS,
    ) -> None:
        self._listing = list_folder(folder, split, masks=masks, tags=tags)
        classes = self._listing.classes
        self._label_map = LabelMap.build(classes.names, classes.ignore, label_set, str(classes.file))
        raise_first(self._listing.faults)
        raise_first(mask_faults(self._listing.masks or (), classes, folder / "masks"))
        self._decode_mask = classes.decode
        self._tags, self._max_megapixels = tags, max_megapixels

    def __len__(self) -> int:
        return len(self._listing)

    def __getitem__(self, index: SupportsIndex) -> Example:
        photo = self._listing.read(index)
        return decoded(photo, self._label_map, self._decode_mask, self._max_megapixels, tags=self._tags)
