"""Words to ids by hand."""

import numpy as np
import pytest

from larvseg_jax.errors import UserError
from larvseg_jax.text.tokenizer import TokenizerConfig
from larvseg_jax.text.word_tokenizer import frequent_words

TOKENIZER = TokenizerConfig("words", ("a", "dog", "dog's", "on"), 6).make()


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("A dog on a", [5, 0, 1, 3, 0, 6]),
        ("dog, DOG'S... cat!", [5, 1, 2, 4, 6, 0]),
        ("", [5, 6, 0, 0, 0, 0]),
        ("a a a a dog dog", [5, 0, 0, 0, 0, 6]),  # too long: the end stays
    ],
)
def test_texts_become_ids(text, ids):
    np.testing.assert_array_equal(TOKENIZER(text), ids)
    assert TOKENIZER.vocabulary_size == 7
    assert ids[int(np.argmax(TOKENIZER(text)))] == 6


def test_frequent_words_come_first():
    assert frequent_words(["A dog and a cat.", "the Cat", "dog's"], 1) == ("a", "cat", "and", "dog", "dog's", "the")
    assert frequent_words(["A dog and a cat.", "the Cat"]) == ("a", "cat")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (lambda: TokenizerConfig("words"), "0 words"),
        (lambda: TokenizerConfig("clip", ("a",)), "give words to 'words' alone"),
        (lambda: TokenizerConfig("words", ("a",), 2), "context is 2"),
        (lambda: TokenizerConfig("words", ("a", "b", "a")).make(), "'a' stands twice"),
        (lambda: TokenizerConfig("words", ("two words",)).make(), "no word in lower case"),
        (lambda: TokenizerConfig("words", ("Dog",)).make(), "no word in lower case"),
    ],
)
def test_what_cannot_be_is_said(config, said):
    with pytest.raises(UserError, match=said):
        config()
