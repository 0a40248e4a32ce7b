"""The files around a prediction: photos in; overlay, label map and JSON out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from rich.table import Table

from data_pipelines.decode import decode_image
from data_pipelines.files import PICTURES
from larvseg_jax.errors import UserError
from larvseg_jax.predict.predictor import Prediction
from larvseg_jax.report.colours import overlay, palette

_SHOWN = 20  # classes in the legend and in the table
_LEGEND_WIDTH = 300
_LINE = 22
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


def find_pictures(paths: Sequence[Path]) -> list[Path]:
    """The photos given, and those of the folders given, by name, hidden ones left out; UserError if there are none."""
    pictures: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES and not p.name.startswith("."))
            if not inside:
                raise UserError(f"{path} has no pictures ({', '.join(sorted(PICTURES))}): give another folder")
            pictures += inside
        elif path.is_file():
            pictures.append(path)
        else:
            raise UserError(f"there is no picture {path}: give the path of a photo or of a folder of photos")
    return pictures


def targets(pictures: Sequence[Path], out: Path) -> list[Path]:
    """Where each photo's overlay goes; the other files are named after it. UserError if two would be one."""
    if out.suffix.lower() == ".png":
        if len(pictures) > 1:
            raise UserError(f"--out={out} is one file for {len(pictures)} photos: give a folder")
        return [out]
    found: dict[Path, Path] = {}
    for picture in pictures:
        target = out / f"{picture.stem}.png"
        if target in found:
            raise UserError(f"{found[target]} and {picture} would both become {target}: rename one of them")
        found[target] = picture
    return list(found)


def read_picture(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """A photo as RGB, turned as its EXIF tag says."""
    try:
        return decode_image(path.read_bytes(), str(path))
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): give another photo") from error


def picture_size(path: Path) -> tuple[int, int]:
    """Height and width, from the head of the file (before any turning)."""
    try:
        with Image.open(path) as picture:
            return picture.height, picture.width
    except OSError:
        height, width, _ = read_picture(path).shape  # a format that only OpenCV knows, or an error in one line
        return height, width


def write(target: Path, picture: Path, image: UInt8[np.ndarray, "h w 3"], found: Prediction, model: str) -> list[Path]:
    """Writes overlay, label map (16 bits, the best class) and JSON beside it; returns their paths."""
    label_file, text_file = target.with_name(f"{target.stem}_labels.png"), target.with_suffix(".json")
    for path in (target, label_file, text_file):
        if path.resolve() == picture.resolve():
            raise UserError(f"{path} is the photo itself and would be overwritten: give another --out")
    best = found.labels[..., 0]
    shares = found.shares()
    summary = {
        "photo": str(picture),
        "model": model,
        "label_map": label_file.name,
        "shares": {found.names[label]: round(share, 6) for label, share in shares},
        "names": found.names,
    }
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_with_legend(image, found)).save(target)
        Image.fromarray(best.astype(np.uint16)).save(label_file)
        text_file.write_text(json.dumps(summary, indent=1, ensure_ascii=False), "utf-8")
    except OSError as error:
        raise UserError(f"cannot write {error.filename or target} ({error.strerror}): give another --out") from error
    return [target, label_file, text_file]


def table(picture: Path, found: Prediction) -> Table:
    """The classes found, with their share of the pixels, mean score and, if known, mean probability there."""
    columns = ["class", "pixels %", "mean score"] + ["mean probability"] * (found.probabilities is not None)
    shown = Table(*columns, title=str(picture))
    best = found.labels[..., 0]
    shares = found.shares()
    for label, share in shares[:_SHOWN]:
        there = best == label
        cells = [found.names[label], f"{100 * share:.2f}", f"{found.scores[there, 0].mean():.3f}"]
        if found.probabilities is not None:
            cells.append(f"{found.probabilities[there, 0].mean():.3f}")
        shown.add_row(*cells)
    if len(shares) > _SHOWN:
        rest = sum(share for _, share in shares[_SHOWN:])
        shown.add_row(f"... and {len(shares) - _SHOWN} more", f"{100 * rest:.2f}")
    return shown


def _with_legend(image: UInt8[np.ndarray, "h w 3"], found: Prediction) -> UInt8[np.ndarray, "H W 3"]:
    """The overlay, and beside it the colours of the largest classes."""
    shares = found.shares()
    colours = palette(len(shares))
    place = np.zeros(len(found.names), np.int32)
    place[[label for label, _ in shares]] = np.arange(len(shares))
    height, width, _ = image.shape
    legend = [(f"{100 * share:5.1f} %  {found.names[label]}", colour)
              for (label, share), colour in zip(shares[:_SHOWN], colours, strict=False)]  # fmt: skip
    more = len(shares) - len(legend)
    page = Image.new("RGB", (width + _LEGEND_WIDTH, max(height, _LINE * (len(legend) + (more > 0)) + 8)), _WHITE)
    page.paste(Image.fromarray(overlay(image, place[found.labels[..., 0]], colours)), (0, 0))
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(14)
    for i, (text, colour) in enumerate(legend):
        top = 4 + i * _LINE
        draw.rectangle((width + 8, top + 2, width + 24, top + 18), fill=tuple(colour.tolist()), outline=_BLACK)
        draw.text((width + 32, top + 2), text[:40], fill=_BLACK, font=font)
    if more > 0:
        draw.text((width + 32, 6 + len(legend) * _LINE), f"and {more} more", fill=_BLACK, font=font)
    return np.asarray(page)
