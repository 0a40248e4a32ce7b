"""One id for each word of a list: for small trainings, whose captions have few words."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int32

from larvseg_jax.errors import UserError

_WORD = re.compile(r"\w+(?:'\w+)*")


def words_in(text: str) -> list[str]:
    """The words of a text, lower case, without punctuation."""
    return _WORD.findall(text.lower())


def frequent_words(texts: Iterable[str], least: int = 2) -> tuple[str, ...]:
    """The words that are in the texts so often or oftener: the most frequent first, equal ones by the alphabet."""
    counts = collections.Counter(word for text in texts for word in words_in(text))
    return tuple(sorted((word for word, n in counts.items() if n >= least), key=lambda word: (-counts[word], word)))


class WordTokenizer:
    """Ids: the words by their place, then unknown, start, end."""

    def __init__(self, words: Sequence[str], context: int) -> None:
        """UserError if a word stands there twice or is none by itself, so that no text could have it."""
        self._ids = {word: i for i, word in enumerate(words)}
        if len(self._ids) < len(words):
            twice = next(word for i, word in enumerate(words) if word in words[:i])
            raise UserError(f"the word {twice!r} stands twice among the tokenizer's words: take one out")
        for word in words:
            if words_in(word) != [word]:
                raise UserError(f"{word!r} among the tokenizer's words is no word in lower case: split or remove it")
        self._unknown, self._start, self._end = range(len(words), len(words) + 3)
        self.vocabulary_size, self.context = len(words) + 3, context

    def __call__(self, text: str) -> Int32[np.ndarray, " context"]:
        """See `Tokenizer`."""
        tokens = [self._ids.get(word, self._unknown) for word in words_in(text)][: self.context - 2]
        ids = np.zeros(self.context, np.int32)
        ids[: len(tokens) + 2] = [self._start, *tokens, self._end]
        return ids
