"""Where examples come from: opens what `source(...)` in a config describes."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from data_pipelines.class_folders import ClassFolderSource
from data_pipelines.examples import Reads, Source
from data_pipelines.folder import FolderSource
from data_pipelines.picture_files import MAX_MEGAPIXELS
from data_pipelines.tagged_photos import TaggedSource
from data_pipelines.tfds_source import TfdsSource
from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary import LabelSet


@dataclasses.dataclass(frozen=True)
class SourceConfig:
    """A section `source`: one of `tfds`, `folder`, `class_folders` and `tagged` is set, relative to data_root."""

    tfds: str = ""  # directory of a prepared TFDS data set (ArrayRecord)
    folder: str = ""  # folder with images/, masks/, classes.txt or .json (docs/own_data.md)
    class_folders: str = ""  # folder with one folder of pictures per class (tags only)
    tagged: str = ""  # folder of pictures and a tags.csv or tags.json (tags only; docs/own_data.md)
    split: str = "train"  # TFDS split, sub-folder of images/, or key of splits.json ("suggested.train_masks": nested)

    def location(self, data_root: str | os.PathLike[str]) -> Path:
        """The directory it names."""
        return Path(data_root) / (self.tfds or self.folder or self.class_folders or self.tagged)


def open_source(
    source: SourceConfig,
    data_root: str | os.PathLike[str],
    label_set: LabelSet,
    reads: Reads,
    max_megapixels: int = MAX_MEGAPIXELS,
) -> Source:
    """Open the split that `source` names, with labels as columns of `label_set`.

    Args:
      source: one of `tfds`, `folder`, `class_folders` and `tagged`; and `split`.
      data_root: folder they are relative to; "" = environment variable LARVSEG_DATA, else the
        current folder.
      label_set: the classes the stream knows.
      reads: what every Example has besides the photo.
      max_megapixels: the largest photo or mask that is decoded, millions of pixels.

    Raises:
      UserError: nothing there, or it does not fit (file, value and remedy in the message).
    """
    named = {kind: getattr(source, kind) for kind in ("tfds", "folder", "class_folders", "tagged")}
    if sum(map(bool, named.values())) != 1:
        raise UserError(f"source has {', '.join(f'{k}={v!r}' for k, v in named.items())}: name one of them")
    masks, tags = reads == "masks", reads == "tags"
    root = Path(data_root or os.environ.get("LARVSEG_DATA", ""))
    if source.folder:
        folder = root / source.folder
        return FolderSource(folder, source.split, label_set, masks=masks, tags=tags, max_megapixels=max_megapixels)
    if source.class_folders or source.tagged:
        if masks:
            what = "class folders have no masks" if source.class_folders else "a list of tags has no masks"
            raise UserError(f"{source.location(root)}: {what}: use them in a tag_stream(...) with tags_from='image'")
        of = ClassFolderSource if source.class_folders else TaggedSource
        return of(source.location(root), source.split, label_set, max_megapixels)
    directory = root / source.tfds
    return TfdsSource(directory, source.split, label_set, masks=masks, tags=tags, max_megapixels=max_megapixels)
