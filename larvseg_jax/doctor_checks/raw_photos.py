"""The photos of a source as they are stored, before anything is decoded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_pipelines.folder_classes import ColourTable
from larvseg_jax.doctor_checks.trouble import Trouble


@dataclasses.dataclass(frozen=True)
class RawPhoto:
    """One photo, not decoded yet.

    Attributes:
      id: of the photo.
      image_name: how messages call the picture; mask_name likewise.
      image: bytes of the picture.
      mask: bytes of the mask; None if the source has none or none is wanted.
      tags: class ids of the data set, None if the source has none.
    """

    id: str
    image_name: str
    image: bytes
    mask_name: str = ""
    mask: bytes | None = None
    tags: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class PhotoSet:
    """The photos of one split.

    Attributes:
      kind: "prepared", "folder" or "class folders".
      directory: where they lie.
      names: class names of the data set, by class id.
      ignore: mask value without class.
      colours: of the masks, where they are coloured pictures.
      count: number of photos that can be read as far as names tell.
      read: photo by number; UserError if its bytes cannot be had. Safe to call from several threads.
      tags_checked: `troubles` has all wrong tags already.
      troubles: what is wrong without any picture being opened.
      metadata: of a prepared set, see data_pipelines.builders; {} elsewhere.
      stored_bytes: of the prepared set with all its splits; None where files would have to be counted.
    """

    kind: str
    directory: Path
    names: tuple[str, ...]
    ignore: int | None
    colours: ColourTable | None
    count: int
    read: Callable[[int], RawPhoto]
    tags_checked: bool = False
    troubles: tuple[Trouble, ...] = ()
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)
    stored_bytes: int | None = None
