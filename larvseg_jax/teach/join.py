"""A taught class joins a trained model, gets another name, or leaves it."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float32

from larvseg_jax.errors import UserError
from larvseg_jax.methods.method import Teachable
from larvseg_jax.teach.request import check_new
from larvseg_jax.trained import Trained, with_classes


def with_class(trained: Trained, name: str, vector: Float32[np.ndarray, " d"]) -> Trained:
    """The model with one more class, the last, among the novel ones; its vector is the direction of `vector`.

    Raises:
      UserError: the model has a class of that name, or its method cannot be taught.
    """
    words = trained.vocabulary
    check_new(words, name)
    method = _teachable(trained)
    params, memory = method.with_row(trained.params, trained.memory, vector)
    vocabulary = dataclasses.replace(words, classes=(*words.classes, name), novel=(*words.novel, name))
    return with_classes(trained, vocabulary, params, memory)


def without_class(trained: Trained, name: str) -> Trained:
    """The model without a class; UserError if it is not in the vocabulary, or too few are left."""
    words = trained.vocabulary
    row = words.row(name)
    if len(words.classes) <= 2:
        raise UserError(f"without {name!r} one class would be left, and scores are relative to each other")
    params, memory = _teachable(trained).without_row(trained.params, trained.memory, row)

    def left(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(other for other in names if other != name)

    vocabulary = dataclasses.replace(
        words,
        classes=left(words.classes),
        base=left(words.base),
        novel=left(words.novel),
        background="" if words.background == name else words.background,
        ignore_in_eval=left(words.ignore_in_eval),
        aliases=tuple(pair for pair in words.aliases if pair[1] != name),
    )
    return with_classes(trained, vocabulary, params, memory)


def with_name(trained: Trained, old: str, new: str) -> Trained:
    """The model that calls a class otherwise; UserError if there is no such class, or another one of that name."""
    words = trained.vocabulary
    words.row(old)
    check_new(words, new)

    def renamed(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(new if name == old else name for name in names)

    vocabulary = dataclasses.replace(
        words,
        classes=renamed(words.classes),
        base=renamed(words.base),
        novel=renamed(words.novel),
        background=new if words.background == old else words.background,
        ignore_in_eval=renamed(words.ignore_in_eval),
        aliases=tuple((other, new if name == old else name) for other, name in words.aliases),
    )
    return with_classes(trained, vocabulary, trained.params, trained.memory)


def _teachable(trained: Trained) -> Teachable:
    if not isinstance(trained.method, Teachable):
        raise UserError(f"{trained.source}: this method has no classes that could be taught without training")
    return trained.method
