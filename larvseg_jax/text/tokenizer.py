"""From a text to token ids, as a section of a config says."""

from __future__ import annotations

import dataclasses
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32

from larvseg_jax.errors import UserError
from larvseg_jax.options import Count


@runtime_checkable
class Tokenizer(Protocol):
    """Texts to ids. The end token has the largest id, so that a text ends at the first largest one of its ids."""

    @property
    def vocabulary_size(self) -> int:
        """Number of ids."""
        ...

    @property
    def context(self) -> int:
        """Ids of a text."""
        ...

    def __call__(self, text: str) -> Int32[np.ndarray, " context"]:
        """Start, the text's tokens, end, then zeros; of a text too long the first tokens, then the end."""
        ...


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """How texts become ids; of a method and of the streams that it learns from alike."""

    kind: Literal["clip", "words"] = "clip"  # CLIP's byte pairs, or the words below
    words: tuple[str, ...] = ()  # of a word-level one, lower case; others are unknown
    context: Count = 77  # ids of a text, start and end among them

    def __post_init__(self) -> None:
        if self.context < 3:
            raise UserError(f"context is {self.context}: a text needs a start, a token and an end")
        if (self.kind == "words") != bool(self.words):
            raise UserError(
                f"a tokenizer of kind {self.kind!r} and {len(self.words)} words: give words to 'words' alone"
            )

    def make(self) -> Tokenizer:
        """The tokenizer; UserError if the library it needs is not there."""
        if self.kind == "words":
            from larvseg_jax.text.word_tokenizer import WordTokenizer

            return WordTokenizer(self.words, self.context)
        from larvseg_jax.text.clip_tokenizer import ClipTokenizer

        return ClipTokenizer(self.context)
