"""A CLIP's part in the scores of an evaluation: it looks at a crop of every proposal of every window (inference.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from larvseg_jax.methods.cel.inference import (
    semantic_scores,
    simple_ensemble,
    zegformer_calibrated,
    zegformer_ensemble,
)
from larvseg_jax.methods.cel.options import EnsembleConfig
from larvseg_jax.methods.crops import crop_scores, masks_on_pixels
from larvseg_jax.methods.method import Images, Reader
from larvseg_jax.vocabulary import LabelSet, Vocabulary


class Advised(NamedTuple):
    """The memory of a model that asks a CLIP.

    Attributes:
      text: the vectors of its own classes.
      params: the CLIP's.
      names: the vectors of the same classes by the CLIP's text tower.
    """

    text: Float[Array, "rows e"]
    params: PyTree
    names: Float[Array, "n d"]


class Ensemble:
    """Scores with a CLIP's help."""

    def __init__(self, config: EnsembleConfig, reader: Reader, vocabulary: Vocabulary) -> None:
        self.config, self._reader = config, reader._replace(params=())
        seen = (*vocabulary.base, *filter(None, [vocabulary.background])) if config.seen == "base" else ()
        self._seen = [vocabulary.row(name) for name in seen]

    def memory(self, text: Float[Array, "rows e"], reader: Reader, vocabulary: Vocabulary) -> Advised:
        """The memory that the scores need."""
        names = reader.method.text_vectors(reader.params, vocabulary.classes, self.config.templates)
        return Advised(text, reader.params, names)

    def scorer(
        self, label_set: LabelSet
    ) -> Callable[[Advised, Float[Array, "b q c"], Float[Array, "b q h w"], Images], Float[Array, "b h w c"]]:
        """From (memory, the queries' probabilities, logits of their masks, windows) to scores on the mask grid."""
        rows, known = jnp.asarray(label_set.rows), jnp.asarray(label_set.multiplicity) > 0
        seen = jnp.asarray(np.isin(label_set.rows, self._seen))

        def scores(
            memory: Advised, own: Float[Array, "b q c"], masks: Float[Array, "b q h w"], images: Images
        ) -> Float[Array, "b h w c"]:
            reader, (_, height, width, _) = self._reader._replace(params=memory.params), images.shape
            shown = masks_on_pixels(masks, (height, width))
            clip, valid = crop_scores(reader, memory.names[rows], images, shown, self.config.fill, known)
            if self.config.kind == "simple":
                return semantic_scores(simple_ensemble(own, clip, valid, seen, self.config.weight), masks)
            of_both = zegformer_ensemble(own, clip, valid, seen)
            return zegformer_calibrated(semantic_scores(of_both, masks), seen)

        return scores
