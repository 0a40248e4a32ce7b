"""A view of masks and tags: masks of some classes, and labels of the crop for these and others."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from data_pipelines.examples import Example, Reads
from data_pipelines.rows import ArraySpec
from data_pipelines.views import VIEWS, _CropView, tags_in
from larvseg_jax.options import Count
from larvseg_jax.vocabulary import IGNORE_LABEL, LabelSet


@dataclasses.dataclass(frozen=True)
class MaskTagView(_CropView):
    """A random crop of a photo, the class of the pixels of `masked` classes, and the classes that are in the crop."""

    reads: ClassVar[Reads] = "masks"
    labels_pixels: ClassVar[bool] = False
    always_tags: ClassVar[tuple[str, ...]] = ()

    masked: tuple[str, ...] = ()  # classes whose masks are shown
    hidden_tags: bool = True  # whether the other classes are tags of the crops that show them
    max_labels: Count = 16  # most tags of one crop

    def check(self, label_set: LabelSet) -> None:
        pass

    def row(self, example: Example, rng: np.random.Generator, label_set: LabelSet) -> dict[str, Any]:
        crop = self._crop(example, rng, label=True)
        assert crop.label is not None
        shown = np.isin(crop.label, [label_set.column(name) for name in self.masked])
        tags = tags_in(crop.label if self.hidden_tags else np.where(shown, crop.label, IGNORE_LABEL))
        padded = np.full(self.max_labels, IGNORE_LABEL, np.int32)
        padded[: len(tags)] = tags
        return {"image": crop, "label": np.where(shown, crop.label, IGNORE_LABEL), "tags": padded}

    def spec(self) -> dict[str, ArraySpec]:
        return {
            **self._image_spec(),
            "label": ArraySpec((self.loss_size, self.loss_size), "int32", IGNORE_LABEL),
            "tags": ArraySpec((self.max_labels,), "int32", IGNORE_LABEL),
        }


VIEWS["masks_and_tags"] = MaskTagView  # type: ignore[assignment]
