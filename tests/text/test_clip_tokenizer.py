"""CLIP's tokenizer against recorded ids, and byte pairs joined by hand; the templates by what their sources print."""

import builtins

import numpy as np
import pytest

from larvseg_jax.errors import UserError
from larvseg_jax.text import clip_tokenizer
from larvseg_jax.text.clip_tokenizer import ClipTokenizer
from larvseg_jax.text.prompts import filled, known_templates, templates
from larvseg_jax.text.tokenizer import Tokenizer, TokenizerConfig

TOKENIZER = TokenizerConfig().make()
START, END = 49406, 49407


def joined_by_hand(word, ranks):
    """The pair of lowest rank is joined until none is left."""
    symbols = [*word[:-1], word[-1] + "</w>"]
    while pairs := [pair for pair in zip(symbols, symbols[1:], strict=False) if pair in ranks]:
        first, second = min(pairs, key=ranks.__getitem__)
        i = next(i for i in range(len(symbols)) if symbols[i : i + 2] == [first, second])
        symbols[i : i + 2] = [first + second]
    return symbols


def test_ids_are_those_of_the_published_models():
    assert isinstance(TOKENIZER, Tokenizer)
    assert (TOKENIZER.vocabulary_size, TOKENIZER.context) == (49408, 77)
    ids = TOKENIZER("A photo  of\na CAT &amp;amp; dog.")
    np.testing.assert_array_equal(ids[:10], [START, 320, 1125, 539, 320, 2368, 261, 1929, 269, END])
    assert ids.dtype == np.int32
    assert not ids[10:].any()


def test_a_text_too_long_ends_with_the_end():
    ids = ClipTokenizer(6)("a photo of a cat on a mat")
    np.testing.assert_array_equal(ids, [START, 320, 1125, 539, 320, END])


def test_the_end_in_a_text_is_one_token():
    np.testing.assert_array_equal(TOKENIZER("cat<|endoftext|> cat")[:5], [START, 2368, END, 2368, END])
    # Behind punctuation it belongs to that, as with the original's regular expression.
    assert (TOKENIZER("!<|endoftext|>") == END).sum() == 1


def test_merges_of_ones_own_are_joined_by_rank():
    pairs = [("e", "r"), ("a", "t</w>"), ("w", "a"), ("wa", "t"), ("wat", "er</w>"), ("x", "yy"), ("t", "er")]
    tokenizer = ClipTokenizer(16, ["#version: own", *map(" ".join, pairs)])
    ranks = {pair: i for i, pair in enumerate(pairs)}
    table = [*clip_tokenizer._BYTES, *(c + "</w>" for c in clip_tokenizer._BYTES), *(a + b for a, b in pairs)]
    assert tokenizer.vocabulary_size == len(table) + 2
    for word in ("water", "waterer", "at", "watt", "tat"):
        assert [table[i] for i in tokenizer.tokens(word)] == joined_by_hand(word, ranks)


def test_a_line_that_is_no_pair_is_told():
    with pytest.raises(UserError, match=r"line 3 of the merges is 'x': it must have two symbols"):
        ClipTokenizer(8, ["#version", "a b", "x"])


def test_without_ftfy_unicode_is_composed(monkeypatch):
    clip_tokenizer._mend.cache_clear()
    real = builtins.__import__

    def without(name, *rest):
        if name == "ftfy":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    try:
        assert clip_tokenizer.cleaned(" Cafe\u0301  &AMP; ﬁ ") == "café & ﬁ"
    finally:
        clip_tokenizer._mend.cache_clear()


def test_templates_have_the_numbers_of_their_sources():
    sizes = {name: len(of) for name, of in known_templates().items()}
    assert sizes == dict(clip=1, simple=1, zegformer=1, vilseg_paper=1, imagenet_80=80, vild_14=14, maskclip_85=85)
    assert all(template.count("{}") == 1 for of in known_templates().values() for template in of)
    assert filled(templates("clip"), "red {car}") == ("a photo of a red {car}.",)
    assert templates("an image of {}") == ("an image of {}",)
    with pytest.raises(UserError, match="'imagenet' is no template: use clip, simple"):
        templates("imagenet")
