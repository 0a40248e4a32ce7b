"""The files of a prediction (overlay, label map, coloured map, JSON, exports), and its table on the terminal."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from rich.table import Table
from rich.text import Text

from larvseg_jax.console import printable
from larvseg_jax.errors import UserError
from larvseg_jax.predict.drawing import SHOWN, coloured, overlay_page
from larvseg_jax.predict.exports import EXPORTS
from larvseg_jax.predict.names import colour_file, export_file, files_there, in_utf8, label_file, text_file
from larvseg_jax.predict.segmentation import Segmentation
from larvseg_jax.report.lettering import can_draw


def write(
    target: Path,
    photo: str,
    image: UInt8[np.ndarray, "h w 3"],
    found: Segmentation,
    model: str,
    *,
    show: Collection[str] | None = None,
    formats: Sequence[str] = (),
) -> list[Path]:
    """Writes overlay, label map (16 bits, the best class), coloured map, JSON and exports; returns their paths.

    Each file is there whole or not at all, also if this is interrupted. What an earlier prediction of that name has
    written and this one does not is removed.

    Args:
      target: the overlay's file; the others are named after it.
      photo: path of the photo, "" if it has none.
      image: the photo.
      found: what was found in it.
      model: path of the model.
      show: names of the classes that are coloured, the rest is grey; None: all.
      formats: names of `exports.EXPORTS`.

    Raises:
      UserError: the files cannot be written.
    """
    path = in_utf8(os.path.abspath(photo)) if photo else ""
    texts = {export_file(target, form): EXPORTS[form](found, path) for form in formats}
    files = [text_file(target), target, label_file(target), colour_file(target), *texts]
    texts[text_file(target)] = _summary(target, path, found, in_utf8(model), [file.name for file in files])
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".predict-", dir=target.parent) as folder:
            new = {file: Path(folder) / file.name for file in files}
            overlay_page(image, found, show).save(new[target], "PNG")
            Image.fromarray(found.labels).save(new[label_file(target)])
            coloured(found, show).save(new[colour_file(target)])
            for file, content in texts.items():
                # A file name that is not UTF-8 stands there as JSON's own escapes.
                text = json.dumps(content, indent=1 if file == text_file(target) else None, ensure_ascii=False)
                new[file].write_text(text, "utf-8", errors="backslashreplace")
            for file in files_there(target):
                if file not in files:
                    file.unlink(missing_ok=True)
            for file, finished in new.items():  # the JSON first: it says whose the others are
                finished.replace(file)
    except OSError as error:
        raise UserError(f"cannot write {printable(target)} ({error.strerror}): give another --out") from error
    return [target, label_file(target), colour_file(target), text_file(target), *files[4:]]


def _summary(target: Path, photo: str, found: Segmentation, model: str, files: list[str]) -> dict[str, Any]:
    """What the JSON file says: names, shares, and every segment."""
    return {
        "photo": photo,
        "model": model,
        "files": [in_utf8(name) for name in files],
        "label_map": in_utf8(label_file(target).name),
        "size": {"width": found.size[1], "height": found.size[0]},
        "shares": {found.names[label]: round(share, 6) for label, share in found.shares()},
        "groups": {found.names[label]: found.groups[label] for label, _ in found.shares()},
        "segments": [{"label": segment.label, **segment.figures} for segment in found.segments],
        "names": found.names,
    }


def table(found: Segmentation) -> Table:
    """The classes found: share of the pixels, group, mean score and, if known, mean probability there."""
    groups = any(found.groups)
    columns = ["class", *["group"] * groups, "pixels %", "mean score"]
    shown = Table(*columns, *["mean probability"] * (found.mean_probabilities is not None))
    shares = found.shares()
    for label, share in shares[:SHOWN]:
        cells = [*[found.groups[label]] * groups, f"{100 * share:.2f}", f"{found.mean_scores[label]:.3f}"]
        if found.mean_probabilities is not None:
            cells.append(f"{found.mean_probabilities[label]:.3f}")
        shown.add_row(Text(printable(found.names[label])), *cells)
    if len(shares) > SHOWN:
        rest = sum(share for _, share in shares[SHOWN:])
        shown.add_row(f"... and {len(shares) - SHOWN} more", *[""] * groups, f"{100 * rest:.2f}")
    return shown


def without_letters(found: Segmentation) -> list[str]:
    """Names of the legend that no font here can draw: it gives their numbers instead."""
    return [found.names[label] for label, _ in found.shares()[:SHOWN] if not can_draw(found.names[label])]
