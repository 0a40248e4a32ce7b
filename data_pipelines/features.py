"""A stream that reads cached features (feature_files.py) where another one reads photos.

Which photo is when in the stream does not change; which of its views is taken is drawn from the random numbers of its
place, so the batch of step i is still a function of (seed, i).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from data_pipelines.examples import Example, Reads
from data_pipelines.feature_files import FeatureFacts, FeatureRecords, token_names
from data_pipelines.rows import ArraySpec, besides_pictures
from data_pipelines.streams import Stream, stream_seed
from data_pipelines.views import View
from larvseg_jax.vocabulary import LabelSet


@dataclasses.dataclass(frozen=True)
class FeatureView:
    """A view whose pictures have been through the first blocks already: a row has their tokens instead.

    Attributes:
      view: how the photos were seen.
      facts: what the features are.
    """

    view: View
    facts: FeatureFacts

    @property
    def crop_size(self) -> int:
        """Side of the square crop, pixels."""
        return self.view.crop_size

    @property
    def loss_size(self) -> int:
        """Side of the loss grid; 0: it has none."""
        return self.view.loss_size

    @property
    def reads(self) -> Reads:
        """What the photos needed besides."""
        return self.view.reads

    @property
    def labels_pixels(self) -> bool:
        """Whether it teaches the class of every pixel."""
        return self.view.labels_pixels

    @property
    def max_labels(self) -> int | None:
        """Most tags of one photo; None where they do not matter."""
        return self.view.max_labels

    @property
    def always_tags(self) -> tuple[str, ...]:
        """Classes that every photo is taken to show."""
        return self.view.always_tags

    def check(self, label_set: LabelSet) -> None:
        """As the view does."""
        self.view.check(label_set)

    def row(self, example: Example, rng: np.random.Generator, label_set: LabelSet) -> dict[str, Any]:
        """A photo as the view sees it: FeatureStream makes the rows of features."""
        return self.view.row(example, rng, label_set)

    def spec(self) -> Mapping[str, ArraySpec]:
        """The tokens, and what the view has besides its pictures."""
        specs = self.view.spec()
        pictures = [name for name, spec in specs.items() if spec.picture]
        tokens = {token: self.facts.specs[token] for name in pictures for token in token_names(name)}
        return tokens | besides_pictures(specs)


@dataclasses.dataclass(frozen=True)
class FeatureStream(Stream):
    """A stream of cached features: its source is FeatureRecords."""

    def row(self, number: int, rng: np.random.Generator) -> dict[str, Any]:
        """One view of photo `number`; DataError if it cannot be read."""
        assert isinstance(self.source, FeatureRecords)
        photo, arrays = self.source.read(number, int(rng.integers(self.source.facts.views)))
        return {"id": photo, "valid": True, **arrays}


def view_rng(seed: int, stream: str, photo: int, view: int) -> np.random.Generator:
    """The random numbers by which a view of a photo is drawn when features are made."""
    entropy = np.random.SeedSequence([stream_seed(seed, stream), photo, view])
    return np.random.Generator(np.random.Philox(entropy))
