"""The view of masks and tags: masks of some classes, and tags of these and others (CEL, docs/cel.md)."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

import numpy as np

from data_pipelines.crop_views import CropView, image_of, padded_tags, tags_in
from data_pipelines.examples import Example, Reads
from data_pipelines.rows import ArraySpec
from larvseg_jax.errors import UserError
from larvseg_jax.options import Count
from larvseg_jax.vocabulary import IGNORE_LABEL, LabelSet


@dataclasses.dataclass(frozen=True)
class MaskTagView(CropView):
    """A random crop of a photo, the class of every pixel of its loss grid, and what it shows besides: CEL's view.

    The masks of some classes, the unseen ones, are kept from the loss grid; they may be among the tags all the same.
    """

    reads: ClassVar[Reads] = "masks"
    labels_pixels: ClassVar[bool] = False
    always_tags: ClassVar[tuple[str, ...]] = ()

    unmasked: tuple[str, ...] = ()  # classes whose masks are not to be learnt from: their pixels have no class
    # Tags: of the classes in the crop's mask but for those unmasked; of all of them; or "photo": as "masked", and
    # besides the photo's own in the file `source.tags_file` (pseudo labels, nouns of captions).
    tags_from: Literal["masked", "crop", "photo"] = "masked"
    drop: float = (
        0.0  # share of the photo's own tags that are left out, drawn for each photo and step; CEL's captions: 0.25
    )
    max_labels: Count = 32  # most tags of one photo (a static shape); more stop the run with the photo's name

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.drop < 1:
            raise UserError(f"drop is {self.drop}: give a share of the own tags of photos, 0 to below 1")
        if self.drop and self.tags_from != "photo":
            raise UserError(
                f"drop={self.drop} leaves out own tags of photos, and tags_from is {self.tags_from!r}: leave it at 0"
            )

    def check(self, label_set: LabelSet) -> None:
        """UserError if a class whose masks are left out is not among the stream's."""
        unknown = [name for name in self.unmasked if name not in label_set.members]
        if unknown:
            raise UserError(f"unmasked has {unknown[0]!r}, which is not among the stream's classes: correct it")

    def row(self, example: Example, rng: np.random.Generator, label_set: LabelSet) -> dict[str, Any]:
        """The arrays of `spec`."""
        crop = self.crop(example, rng, label=True)
        assert crop.label is not None
        unmasked = np.array([label_set.column(name) for name in self.unmasked], np.int32)
        label = np.where(np.isin(crop.label, unmasked), np.int32(IGNORE_LABEL), crop.label)
        tags = {*tags_in(crop.label if self.tags_from == "crop" else label).tolist()}
        if self.tags_from == "photo":
            listed = example["tags"]
            tags |= {*listed[rng.random(len(listed)) >= self.drop].tolist()}
        return {**image_of(crop), "label": label, "tags": padded_tags(tags, self.max_labels, example["id"])}

    def spec(self) -> dict[str, ArraySpec]:
        """What a row consists of: picture, loss grid, tags."""
        return {
            **self.image_spec(),
            "label": ArraySpec((self.loss_size, self.loss_size), "int32", IGNORE_LABEL),
            "tags": ArraySpec((self.max_labels,), "int32", IGNORE_LABEL),
        }
