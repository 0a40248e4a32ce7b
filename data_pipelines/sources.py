"""Where examples come from: opens what `source(...)` in a config describes."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from data_pipelines.caption_shards import list_shards
from data_pipelines.captioned_photos import Captioned, CaptionSource, list_captioned
from data_pipelines.class_folders import ClassFolderSource
from data_pipelines.examples import Reads, Source
from data_pipelines.folder import FolderSource
from data_pipelines.listed_tags import with_listed_tags
from data_pipelines.picture_files import MAX_MEGAPIXELS
from data_pipelines.prepared import open_prepared
from data_pipelines.tagged_photos import TaggedSource
from data_pipelines.tfds_source import TfdsSource
from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary import LabelSet


@dataclasses.dataclass(frozen=True)
class SourceConfig:
    """A section `source`: one of its kinds is set, as seen from data_root."""

    tfds: str = ""  # directory of a prepared TFDS data set (ArrayRecord)
    folder: str = (
        ""  # folder with images/; masks/ and classes.txt (docs/own_data.md), or captions.json (docs/captions.md)
    )
    class_folders: str = ""  # folder with one folder of pictures per class (tags only)
    tagged: str = ""  # folder of pictures and a tags.csv or tags.json (tags only; docs/own_data.md)
    shards: str = ""  # folder of .tar files, as web data sets come (captions only; docs/captions.md)
    tags_file: str = ""  # tags besides the masks of tfds or a folder, by a photo's id (docs/pseudo_labels.md)
    split: str = "train"  # TFDS split, sub-folder of images/, or key of splits.json ("suggested.train_masks": nested)

    @property
    def named(self) -> dict[str, str]:
        """The kinds of source and what each is set to."""
        return {name: getattr(self, name) for name in ("tfds", "folder", "class_folders", "tagged", "shards")}

    def location(self, data_root: str | os.PathLike[str]) -> Path:
        """The directory it names."""
        return Path(data_root, next(filter(None, self.named.values()), ""))


_ONLY: dict[str, tuple[Reads, str, str]] = {
    "class_folders": ("tags", "class folders have", "tag_stream(...) with tags_from='image'"),
    "tagged": ("tags", "a list of tags has", "tag_stream(...) with tags_from='image'"),
    "shards": ("captions", "shards have", "caption_stream(...)"),
}
"""Kinds of source that have one kind of supervision only; how messages say what they have, and their stream."""


def open_source(
    source: SourceConfig,
    data_root: str | os.PathLike[str],
    label_set: LabelSet,
    reads: Reads,
    max_megapixels: int = MAX_MEGAPIXELS,
) -> Source:
    """Open the split that `source` names, with labels as columns of `label_set`.

    Args:
      source: one of the kinds of source; and `split`.
      data_root: folder they are relative to; "" = environment variable LARVSEG_DATA, else the
        current folder.
      label_set: the classes the stream knows; captions go with any.
      reads: what every Example has besides the photo.
      max_megapixels: the largest photo or mask that is decoded, millions of pixels.

    Raises:
      UserError: nothing there, or it does not fit (file, value and remedy in the message).
    """
    if sum(map(bool, source.named.values())) != 1:
        raise UserError(f"source has {', '.join(f'{k}={v!r}' for k, v in source.named.items())}: name one of them")
    root = data_root or os.environ.get("LARVSEG_DATA", "")
    place = source.location(root)
    if source.tags_file and reads != "masks":
        raise UserError(f"source.tags_file is read beside masks, and this stream reads {reads}: leave it empty")
    kind = next(kind for kind, value in source.named.items() if value)
    has, words, stream = _ONLY.get(kind, (reads, "", ""))
    if has != reads:
        raise UserError(f"{place}: {words} no {reads}: use them in a {stream}")
    if reads == "captions":
        return CaptionSource(open_captioned(source, place), max_megapixels)
    if kind in ("class_folders", "tagged"):
        of = ClassFolderSource if kind == "class_folders" else TaggedSource
        return of(place, source.split, label_set, max_megapixels)
    masks, tags = reads == "masks", reads == "tags"
    either = FolderSource if kind == "folder" else TfdsSource
    opened = either(place, source.split, label_set, masks=masks, tags=tags, max_megapixels=max_megapixels)
    return with_listed_tags(opened, Path(root, source.tags_file), label_set) if source.tags_file else opened


def open_captioned(source: SourceConfig, place: Path) -> Captioned:
    """The photos with captions of a split; what is wrong with them stands in their faults.

    Raises:
      UserError: there is nothing to list.
    """
    if source.shards:
        return list_shards(place, source.split)
    if source.folder:
        return list_captioned(place, source.split)
    return open_prepared(place, source.split, captions=True)
