"""The folder: what lies in it, and what may be replaced. Needs nothing of Hugging Face's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from larvseg_jax.console import console, in_bytes, printable
from larvseg_jax.disk import write_text
from larvseg_jax.errors import UserError
from larvseg_jax.export import write_model
from larvseg_jax.trained import Trained

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
MODEL_TYPE = "larvseg_jax"
_BESIDE = {"LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE", ".git", ".gitattributes", ".gitignore", ".cache"}


def check_layout(folder: Path) -> None:
    """UserError if something in the folder is not of an earlier export, and what people keep beside one."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder} is a file: give a folder, new or empty")
    strange = sorted({path.name for path in folder.iterdir()} - {CONFIG, WEIGHTS, CARD} - _BESIDE)
    if strange:
        raise UserError(
            f"{folder} holds {printable(strange[0])}, which is no part of a model: give a folder of its own"
        )
    config = folder / CONFIG
    if config.exists() and _model_type(config) != MODEL_TYPE:
        raise UserError(f"{config} is another program's: give a folder of its own")


def check_licence(licence: str) -> None:
    """UserError if it is no identifier; "" is none."""
    if licence and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", licence):
        raise UserError(f"--licence={licence} is no identifier: a card of Hugging Face's has one such as apache-2.0")


def write_layout(trained: Trained, folder: Path, licence: str = "") -> None:
    """Writes the model: all weights in float32, no memory. A README.md that is there is kept.

    Args:
      trained: the model.
      folder: see `check_layout`.
      licence: an identifier as Hugging Face has them, "apache-2.0"; "": the card says none.

    Raises:
      UserError: as `check_layout`; a file cannot be written.
    """
    check_layout(folder)
    check_licence(licence)
    if not (folder / CARD).exists():
        write_text(folder / CARD, card(trained, licence))
    write_model(trained, folder / WEIGHTS)
    write_text(folder / CONFIG, json.dumps(config_of(trained), indent=1, ensure_ascii=False))
    size = in_bytes((folder / WEIGHTS).stat().st_size)
    console.print(f"{folder}: {len(trained.vocabulary.classes)} classes, {size} of weights, {CONFIG}, {CARD}")


def config_of(trained: Trained) -> dict[str, Any]:
    """What config.json says; `Segmenter` reads the same from the weights, and does not need it."""
    words, windows = trained.vocabulary, trained.windows
    return {
        "model_type": MODEL_TYPE,
        "classes": words.classes,
        "base": words.base,
        "novel": words.novel,
        "background": words.background,
        "windows": {"scale": windows.scale, "window": windows.window, "stride": windows.stride},
        "step": trained.step,
        "versions": trained.versions,
    }


def card(trained: Trained, licence: str) -> str:
    """README.md: a head that Hugging Face reads, and how to use the model."""
    words = trained.vocabulary
    head = [f"library_name: {MODEL_TYPE}", "pipeline_tag: image-segmentation"]
    head += [f"license: {licence}"] if licence else []
    head += ["tags:", "- semantic-segmentation", "- open-vocabulary", "- jax"]
    groups = {"from masks": words.base, "from image labels only": words.novel}
    named = [
        f"{len(names)} classes learnt {how}: {', '.join(map(printable, names[:20]))}{', ...' * (len(names) > 20)}."
        for how, names in groups.items()
        if names
    ]
    use = [
        "```python",
        "from larvseg_jax import Segmenter",
        "",
        f'model = Segmenter.load("{WEIGHTS}")',
        'model("photo.jpg").overlay().save("overlay.png")',
        "```",
    ]
    text = ["---", *head, "---", "", "# A larvseg_jax model", "", *named, "", *use, ""]
    return "\n".join(text)


def _model_type(config: Path) -> str | None:
    try:
        found = json.loads(config.read_text("utf-8"))
        return found.get("model_type") if isinstance(found, dict) else None
    except (OSError, ValueError):
        return None
