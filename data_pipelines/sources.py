"""Where examples come from: opens what `source(...)` in a config describes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol, runtime_checkable

from data_pipelines.class_folders import ClassFolderSource
from data_pipelines.examples import Source
from data_pipelines.folder import FolderSource
from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary import LabelSet


@runtime_checkable
class Location(Protocol):
    """What `source(...)` in a config says; larvseg_jax.config.SourceConfig is one."""

    @property
    def tfds(self) -> str:
        """Directory of a prepared TFDS data set, or ""."""
        ...

    @property
    def folder(self) -> str:
        """Data folder, or ""."""
        ...

    @property
    def class_folders(self) -> str:
        """Folder with one folder of tagged photos per class, or ""."""
        ...

    @property
    def split(self) -> str:
        """TFDS split, folder in images/, or key of splits.json."""
        ...


def open_source(
    source: Location,
    data_root: str | os.PathLike[str],
    label_set: LabelSet,
    *,
    masks: bool,
    tags: bool,
) -> Source:
    """Open the split that `source` names, with labels as columns of `label_set`.

    Args:
      source: one of `tfds`, `folder` and `class_folders`; and `split`.
      data_root: folder they are relative to; "" = environment variable LARVSEG_DATA, else the
        current folder.
      label_set: the classes the stream knows.
      masks: read masks: every Example has `label`.
      tags: read image labels: every Example has `tags`.

    Raises:
      UserError: nothing there, or it does not fit (file, value and remedy in the message).
    """
    named = {"tfds": source.tfds, "folder": source.folder, "class_folders": source.class_folders}
    if sum(map(bool, named.values())) != 1:
        raise UserError(f"source has {', '.join(f'{k}={v!r}' for k, v in named.items())}: name one of them")
    root = Path(data_root or os.environ.get("LARVSEG_DATA", ""))
    if source.folder:
        return FolderSource(root / source.folder, source.split, label_set, masks=masks, tags=tags)
    if source.class_folders:
        if masks:
            raise UserError(
                f"{root / source.class_folders}: class folders have no masks: use them in a tag_stream(...) with "
                "tags_from='image'"
            )
        return ClassFolderSource(root / source.class_folders, source.split, label_set)
    from data_pipelines.tfds_source import TfdsSource  # importing TFDS takes most of a second

    return TfdsSource(root / source.tfds, source.split, label_set, masks=masks, tags=tags)
