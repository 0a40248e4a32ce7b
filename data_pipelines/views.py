"""How a stream sees its photos: one Example becomes one row of a batch, and what such a row consists of.

A view is also its options: every field is one of the stream's options in a config.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np

from data_pipelines.caption_views import CaptionView
from data_pipelines.crop_views import CropView, image_of, padded_tags, tags_in
from data_pipelines.examples import Example, Reads
from data_pipelines.mask_tag_views import MaskTagView
from data_pipelines.rows import ArraySpec
from larvseg_jax.errors import UserError
from larvseg_jax.options import Count
from larvseg_jax.vocabulary import IGNORE_LABEL, LabelSet


@runtime_checkable
class View(Protocol):
    """From an example to a row of a batch."""

    @property
    def crop_size(self) -> int:
        """Side of the square crop, pixels."""
        ...

    @property
    def loss_size(self) -> int:
        """Side of the loss grid; 0: it has none."""
        ...

    @property
    def reads(self) -> Reads:
        """What examples must have besides the photo."""
        ...

    @property
    def labels_pixels(self) -> bool:
        """Whether it teaches the class of every pixel: the classes of such streams are base."""
        ...

    @property
    def max_labels(self) -> int | None:
        """Most tags of one photo; None where they do not matter."""
        ...

    @property
    def always_tags(self) -> tuple[str, ...]:
        """Classes that every photo is taken to show."""
        ...

    def check(self, label_set: LabelSet) -> None:
        """UserError if the options do not go with the classes that the stream knows."""
        ...

    def row(self, example: Example, rng: np.random.Generator, label_set: LabelSet) -> dict[str, Any]:
        """The arrays of `spec`; pictures as `Written`, whose pixels are written right into the batch."""
        ...

    def spec(self) -> Mapping[str, ArraySpec]:
        """What a row consists of."""
        ...


@dataclasses.dataclass(frozen=True)
class MaskView(CropView):
    """A random crop of a photo, and the class of every pixel of its loss grid."""

    reads: ClassVar[Reads] = "masks"
    labels_pixels: ClassVar[bool] = True
    max_labels: ClassVar[None] = None
    always_tags: ClassVar[tuple[str, ...]] = ()

    def check(self, label_set: LabelSet) -> None:
        """Any classes will do."""

    def row(self, example: Example, rng: np.random.Generator, label_set: LabelSet) -> dict[str, Any]:
        """The arrays of `spec`."""
        crop = self.crop(example, rng, label=True)
        return {**image_of(crop), "label": crop.label}

    def spec(self) -> dict[str, ArraySpec]:
        """What a row consists of: picture and loss grid."""
        return {**self.image_spec(), "label": ArraySpec((self.loss_size, self.loss_size), "int32", IGNORE_LABEL)}


@dataclasses.dataclass(frozen=True)
class TagView(CropView):
    """A random crop of a photo, and the classes that are in it: ascending columns, then IGNORE_LABEL."""

    labels_pixels: ClassVar[bool] = False

    tags_from: Literal["crop", "image"] = "crop"  # the tags in the augmented crop (needs masks), or the photo's own
    max_labels: Count = 32  # most tags of one photo (a static shape); more stop the run with the photo's name
    always_tags: tuple[str, ...] = ()  # tags that every photo has besides its own, e.g. ("background",)

    @property
    def reads(self) -> Reads:
        """Masks if the tags are those of the crop, else the photo's tags."""
        return "masks" if self.tags_from == "crop" else "tags"

    def check(self, label_set: LabelSet) -> None:
        """UserError if a tag that every photo has is not among the stream's classes."""
        unknown = [name for name in self.always_tags if name not in label_set.members]
        if unknown:
            raise UserError(f"always_tags has {unknown[0]!r}, which is not among the stream's classes: add it to them")

    def row(self, example: Example, rng: np.random.Generator, label_set: LabelSet) -> dict[str, Any]:
        """The arrays of `spec`."""
        crop = self.crop(example, rng, label=self.reads == "masks")
        present = example["tags"] if crop.label is None else tags_in(crop.label)
        always = (label_set.column(name) for name in self.always_tags)
        return {**image_of(crop), "tags": padded_tags({*present.tolist(), *always}, self.max_labels, example["id"])}

    def spec(self) -> dict[str, ArraySpec]:
        """What a row consists of: picture and tags."""
        return {**self.image_spec(), "tags": ArraySpec((self.max_labels,), "int32", IGNORE_LABEL)}


VIEWS: dict[str, type[MaskView] | type[TagView] | type[MaskTagView] | type[CaptionView]] = {
    "masks": MaskView,
    "tags": TagView,
    "masks_and_tags": MaskTagView,
    "captions": CaptionView,
}
"""The views by the word that a config has for them: a stream's `kind`."""
