"""CLIP's byte pairs: a text's pieces, whose bytes are joined as often as the list of merges allows."""

from __future__ import annotations

import functools
import gzip
import html
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from jaxtyping import Int32
from tokenizers import models, pre_tokenizers

from larvseg_jax.errors import UserError

_MERGES = Path(__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
_USED = 48_895  # lines of that file: a header and the merges of the published models
_START, _END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"
_PIECES = r"(?i:<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+)"


class ClipTokenizer:
    """Ids: 256 bytes in GPT-2's order, the same at a word's end, the merges in their order, start, end."""

    def __init__(self, context: int = 77, merge_lines: Sequence[str] | None = None) -> None:
        """`merge_lines`: a header, then two symbols a line; None: those of the published models."""
        lines = _shipped_lines() if merge_lines is None else tuple(merge_lines)
        merges = [_pair(line, number) for number, line in enumerate(lines[1:], 2)]
        symbols = [*_BYTES, *(symbol + _WORD_END for symbol in _BYTES), *(first + second for first, second in merges)]
        self._vocabulary = {symbol: i for i, symbol in enumerate([*symbols, _START, _END])}
        self._start, self._end = len(symbols), len(symbols) + 1
        # A merge of what no other one makes never applies; it has its id all the same.
        usable = [pair for pair in merges if set(pair) <= self._vocabulary.keys()]
        self._tokens = tokenizers.Tokenizer(models.BPE(self._vocabulary, usable, end_of_word_suffix=_WORD_END))
        self._split = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(tokenizers.Regex(_PIECES), "removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        self._tokens.pre_tokenizer = self._split
        self.vocabulary_size, self.context = len(symbols) + 2, context

    def __call__(self, text: str) -> Int32[np.ndarray, " context"]:
        """See `text.tokenizer.Tokenizer`. `Original:` refuses a text that is too long unless it is told to cut it."""
        tokens = self.tokens(text)[: self.context - 2]
        ids = np.zeros(self.context, np.int32)
        ids[: len(tokens) + 2] = [self._start, *tokens, self._end]
        return ids

    def tokens(self, text: str) -> list[int]:
        """The ids of a whole text, without start and end; a text may hold these two by their names."""
        clean = cleaned(text)
        if "<|" not in clean:
            return self._tokens.encode(clean).ids
        found: list[int] = []
        for piece, _ in self._split.pre_tokenize_str(clean):
            special = piece in (_START, _END)
            found += (
                [self._vocabulary[piece]] if special else [token.id for token in self._tokens.model.tokenize(piece)]
            )
        return found


def cleaned(text: str) -> str:
    """Mended Unicode, HTML's entities as what they stand for (twice), single blanks, lower case.

    Without the package ftfy Unicode is not mended but composed (NFC): ligatures and broken encodings stay.
    """
    if not (text.isascii() and text.isprintable() and "&" not in text):  # else nothing is to be mended: 10 x as fast
        text = html.unescape(html.unescape(_mend()(text)))
    return " ".join(text.split()).lower()


@functools.cache
def _mend() -> Callable[[str], str]:
    try:
        import ftfy
    except ImportError:
        return functools.partial(unicodedata.normalize, "NFC")
    return ftfy.fix_text


@functools.cache
def _shipped_lines() -> tuple[str, ...]:
    return tuple(gzip.decompress(_MERGES.read_bytes()).decode("utf-8").split("\n")[:_USED])


def _pair(line: str, number: int) -> tuple[str, str]:
    symbols = line.split()
    if len(symbols) != 2:
        raise UserError(f"line {number} of the merges is {line[:40]!r}: it must have two symbols")
    return symbols[0], symbols[1]


def _byte_symbols() -> tuple[str, ...]:
    """A printable character for each byte, in the order of their ids: the printable bytes first, as themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = 256 - len(printable)
    return tuple(map(chr, [*printable, *range(256, 256 + others)]))


_BYTES = _byte_symbols()
