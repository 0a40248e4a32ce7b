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


def located(model: str | os.PathLike[str], pretrained: Path | None) -> tuple[Path, Path | None]:
    """The path of a model, and of the weights it was learnt on, of which a shipped one knows where they are kept.

    Args:
      model: a path, or the name of a shipped model where no file or folder is called so.
      pretrained: the weights that were given for it; None: none.

    Raises:
      UserError: it is a shipped one, and its weights have not been fetched yet.
    """
    path = Path(model).expanduser()
    shipped = MODELS.get(os.fspath(model))
    if shipped is None or path.exists():
        return path, pretrained
    if pretrained is None:
        pretrained = kept_file()
        if not pretrained.is_file():
            raise UserError(
                f"the weights under the model {model} are not here yet: run `larvseg demo` once, which fetches 90 MB"
            )
    return shipped, pretrained
