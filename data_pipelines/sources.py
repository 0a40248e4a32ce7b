"""Where examples come from: opens what `source(...)` in a config describes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol, runtime_checkable

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
    def split(self) -> str:
        """TFDS split, or key of splits.json."""
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
      source: `tfds` or `folder`, and `split`.
      data_root: folder the two are relative to; "" = environment variable LARVSEG_DATA, else the
        current folder.
      label_set: the classes the stream knows.
      masks: read masks: every Example has `label`.
      tags: read image labels: every Example has `tags`.

    Raises:
      UserError: nothing there, or it does not fit (file, value and remedy in the message).
    """
    if bool(source.tfds) == bool(source.folder):
        raise UserError(f"source has tfds={source.tfds!r} and folder={source.folder!r}: name one of them")
    root = Path(data_root or os.environ.get("LARVSEG_DATA", ""))
    if source.folder:
        return FolderSource(root / source.folder, source.split, label_set, masks=masks, tags=tags)
    from data_pipelines.tfds_source import TfdsSource  # importing TFDS takes most of a second

    return TfdsSource(root / source.tfds, source.split, label_set, masks=masks, tags=tags)
