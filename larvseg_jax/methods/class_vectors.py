"""Classes as vectors: the mean of what the text tower says of a name in several sentences."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Int32

from larvseg_jax.models.clip import normalised
from larvseg_jax.text.prompts import filled
from larvseg_jax.text.tokenizer import Tokenizer
from larvseg_jax.vocabulary.class_lists import keys

_PROMPTS = 256  # that the text tower reads at a time, about


def prompt_ids(
    names: Sequence[str], templates: Sequence[str], tokenizer: Tokenizer
) -> Int32[np.ndarray, "n templates l"]:
    """The ids of every class in every template, as long as the longest prompt."""
    prompts = [filled(templates, spoken(name)) for name in names]
    ids = np.array([[tokenizer(prompt) for prompt in of_class] for of_class in prompts], np.int32)
    longest = int(ids.argmax(-1).max()) + 1  # an end is at the largest id, and nothing behind it matters
    return ids[..., :longest]


def spoken(name: str) -> str:
    """A name without what a vocabulary adds to keep two of them apart: a synset's id, or a class list."""
    found = re.fullmatch(r"(.+) \((.+)\)", name)
    return found[1] if found and (re.fullmatch(r"n\d{8}", found[2]) or found[2] in keys()) else name


def ensemble(features: Float[Array, "n templates d"]) -> Float[Array, "n d"]:
    """Normalised, averaged over the templates, normalised again (CLIP's notebook of prompts)."""
    return normalised(jnp.mean(normalised(features), axis=1))


def class_vectors(
    texts: Callable[[Int[Array, "m l"]], Float[Array, "m d"]], ids: Int32[np.ndarray, "n templates l"]
) -> Float[Array, "n d"]:
    """The unit vector of every class, some classes at a time.

    Args:
      texts: the text tower with its projection.
      ids: see `prompt_ids`.
    """
    n, templates, length = ids.shape
    together = max(_PROMPTS // templates, 1)
    chunks = -(-n // together)
    filled_up = np.concatenate([ids, np.repeat(ids[:1], chunks * together - n, axis=0)])

    def of_chunk(chunk: Int[Array, "m l"]) -> Float[Array, "c d"]:
        return ensemble(texts(chunk).reshape(together, templates, -1))

    found = lax.map(of_chunk, jnp.asarray(filled_up.reshape(chunks, together * templates, length)))
    return found.reshape(chunks * together, -1)[:n]
