"""The report of weights that were taken from a file: what of it, and what to look at."""

from __future__ import annotations

import dataclasses

from larvseg_jax.console import first_few
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.weights.stored_weights import StoredWeights

SHOWN = 6
"""Names of each kind in a message."""


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What was done with a file.

    Attributes:
      source: the file and its kind.
      size: the size of its backbone.
      loaded: names of the parameters taken.
      missing: names of those the file does not have, which stay as initialised: the head of a backbone file.
      extra: names in the file that were left out.
      resized: "24x24 -> 32x32" where the position embedding was resized, else "".
      dtypes: dtypes found in the file; the parameters are float32.
      pixels: in words, whether the model's pixels are normalised as those that the weights were trained with.
      activation: in words, whether its MLPs have the activation of a CLIP's; "" of other weights.
      rows_found: how many classes found their row in the file by name; None for files without a head.
      rows_fresh: names of the classes that did not; their rows stay as initialised.
      rows_unused: how many rows of the file belong to no class here.
    """

    source: str
    size: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    resized: str
    dtypes: tuple[str, ...]
    pixels: str
    rows_found: int | None = None
    rows_fresh: tuple[str, ...] = ()
    rows_unused: int = 0
    activation: str = ""

    def __str__(self) -> str:
        converted = "" if self.dtypes == ("float32",) else ", converted to float32"
        lines = [
            f"{self.source}: {self.size}",
            f"loaded: {len(self.loaded)} arrays ({', '.join(self.dtypes)}{converted})",
            f"missing, left as initialised: {first_few(self.missing, SHOWN)}",
            f"extra, left out: {first_few(self.extra, SHOWN)}",
            f"resized: {f'position embedding {self.resized}' if self.resized else 'none'}",
            f"pixels: {self.pixels}",
            *([f"activation: {self.activation}"] if self.activation else []),
        ]
        if self.rows_found is not None:
            of = self.rows_found + len(self.rows_fresh)
            lines += [
                f"class embeddings: {self.rows_found} of {of} taken by name; {self.rows_unused} of the file unused",
                f"classes left as initialised: {first_few(self.rows_fresh, SHOWN)}",
            ]
        return "\n    ".join(lines)


def about_pixels(theirs: str, ours: str) -> str:
    """Whether the model's pixels are those of the weights, in words."""
    if not theirs:
        return f"the file does not say how they were normalised, the model has {ours!r} (docs/weights.md)"
    if theirs == ours:
        return f"normalised as those that the weights were trained with ({ours!r})"
    return f"the weights were trained with {theirs!r}, the model has {ours!r}: --config.model.pixels={theirs} is theirs"


def about_activation(stored: StoredWeights, vit: ViTConfig) -> str:
    """Whether a CLIP's activation is the model's, in words; "" of other weights."""
    if stored.pixels != "clip":
        return ""
    if not stored.activation:
        return f"the file does not say, the model has {vit.mlp!r} (OpenAI's weights: quick_gelu; LAION's: gelu)"
    return f"that of the weights ({stored.activation!r})"
