"""Which classes compete: from what a user writes to names of a model's vocabulary. Knows no network."""

from __future__ import annotations

from collections.abc import Sequence

from larvseg_jax.console import printable
from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary import Vocabulary
from larvseg_jax.vocabulary.choice import choose


def choose_classes(
    texts: Sequence[str] | None,
    vocabulary: Vocabulary,
    exclude: Sequence[str] = (),
    lists: Sequence[str] = (),
    option: str = "classes",
) -> tuple[str, ...]:
    """The names that some texts mean, each once, in their order; all places that take names ask here.

    Args:
      texts: what was written, as `vocabulary.choice` takes it; None: all classes.
      vocabulary: the model's.
      exclude: likewise, what is left out.
      lists: class lists that the vocabulary was made of.
      option: the name of the argument or flag, for messages.

    Raises:
      UserError: a text means no class (with what may be meant), or none is left.
    """
    try:
        return tuple(chosen.name for chosen in choose(texts, vocabulary, exclude, lists))
    except UserError as error:
        raise UserError(f"{option}: {printable(str(error))}") from None


def check_several(names: Sequence[str]) -> None:
    """UserError unless there are two or more."""
    if len(names) < 2:
        raise UserError(f"{len(names)} class competes: scores are relative to each other, give two or more")
