"""Which classes compete: from what a user writes to names of a model's vocabulary. Knows no network."""

from __future__ import annotations

from collections.abc import Sequence

from larvseg_jax.console import printable
from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary import Vocabulary


def choose_classes(texts: Sequence[str], vocabulary: Vocabulary, option: str = "classes") -> tuple[str, ...]:
    """The names that some texts mean, each once, in their order; all places that take names ask here.

    A text is a name as it stands, or several, separated by commas.

    Args:
      texts: what was written.
      vocabulary: the model's.
      option: the name of the argument or flag, for messages.

    Raises:
      UserError: a name is not in the vocabulary (with close ones), or one with a comma was torn apart.
    """
    known = set(vocabulary.classes)
    parts = [[text] if text in known else text.split(",") for text in texts]
    names = [name if name in known else name.strip() for part in parts for name in part]
    if not known.issuperset(names):
        torn = [name for name in known if "," in name and any(name in text and name != text for text in texts)]
        if torn:
            name = printable(min(torn))
            raise UserError(
                f'--{option}: the name {name!r} has a comma: give each class by a flag of its own, --{option}="{name}" '
                f"--{option}=..."
            )
        for name in names:
            try:
                vocabulary.row(name)
            except UserError as error:
                raise UserError(f"{option}: {error}") from None
    return tuple(dict.fromkeys(names))


def check_several(names: Sequence[str]) -> None:
    """UserError unless there are two or more."""
    if len(names) < 2:
        raise UserError(f"{len(names)} class competes: scores are relative to each other, give two or more")
