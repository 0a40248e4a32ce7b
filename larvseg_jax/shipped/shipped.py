"""Models that come with the program: a name instead of a path. Each is a head of `larvseg export --learnt`."""

from __future__ import annotations

import os
from pathlib import Path

from larvseg_jax.errors import UserError
from larvseg_jax.shipped.backbone import kept_file

_HERE = Path(__file__).parent

MODELS = {"animals": _HERE / "animals" / "animals.safetensors"}
"""Name -> its file; model_card.md beside it says what it is. All of them stand on the weights of `backbone.py`."""

PHOTOS = _HERE / "photos"
"""Photos that anybody may show; CREDITS.md names who took them."""


def path_of(model: str | os.PathLike[str]) -> Path:
    """The path of a model: what was given, or the file of a shipped model where nothing is called so but that."""
    path = Path(model).expanduser()
    return path if path.exists() else MODELS.get(os.fspath(model), path)


def located(model: str | os.PathLike[str], pretrained: Path | None) -> tuple[Path, Path | None]:
    """The path of a model, and of the weights it was learnt on, of which a shipped one knows where they are kept.

    Args:
      model: a path, or the name of a shipped model.
      pretrained: the weights that were given for it; None: none.

    Raises:
      UserError: it is a shipped one, and its weights have not been fetched yet.
    """
    path = path_of(model)
    if pretrained is None and path in MODELS.values():
        pretrained = kept_file()
        if not pretrained.is_file():
            raise UserError(
                f"the weights under the model {model} are not here yet: run `larvseg demo` once, which fetches 90 MB"
            )
    return path, pretrained
