"""Text in pictures, in whatever script: by the fonts that are here, and never as empty boxes."""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import matplotlib
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import ImageDraw, ImageFont, features

from larvseg_jax.console import printable

SIZE = 14
"""Height of the letters unless said otherwise, pixels."""

# Fonts that have a glyph for every character, a box, and those that Pillow draws as nothing at this size.
_UNFIT = re.compile("lastresort|adobeblank|color|emoji", re.IGNORECASE)
_STYLED = re.compile("bold|black|heavy|italic|oblique|light|thin|condensed|mono|serif", re.IGNORECASE)


def can_draw(text: str) -> bool:
    """Whether the fonts here have every character of a text."""
    return _runs(text) is not None


def text_width(text: str, size: int = SIZE) -> int:
    """Width in pixels of a text that can be drawn, in one line."""
    return math.ceil(sum(font.getlength(part) for font, part in _runs(text, size) or ()))


def draw_text(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, width: int, size: int = SIZE) -> None:
    """Draws a text in black, in one line and cut to `width` pixels; its characters must be drawable."""
    runs = _runs(text, size) or ()
    if sum(font.getlength(part) for font, part in runs) > width:
        shorter = text
        while shorter and sum(font.getlength(part) for font, part in runs) > width:
            shorter = shorter[:-1]
            runs = _runs(f"{shorter}…", size) or ()
    x, y = place
    direction = "ltr" if _shapes() else None  # the line's: a word of Arabic still runs to the left
    for font, part in runs:
        draw.text((x, y), part, fill=(0, 0, 0), font=font, direction=direction)
        x += round(font.getlength(part))


def _runs(text: str, size: int = SIZE) -> tuple[tuple[ImageFont.FreeTypeFont, str], ...] | None:
    """The text in parts with a font for each, as few as there can be; None where a character has none."""
    text = "".join(c for c in printable(text) if not _is_selector(c))
    letters = {c for c in text if unicodedata.category(c) != "Cf"}
    if not _shapes():
        text = "".join(c for c in text if unicodedata.category(c) != "Cf")
        if any(unicodedata.bidirectional(c) in ("R", "AL") for c in letters):
            return None  # would be drawn from left to right, its letters apart
    for path, characters in _fonts():
        if {ord(c) for c in letters} <= characters:
            return ((_font(path, size), text),)
    runs: list[tuple[Path, str]] = []
    for c in text:
        at_once = runs and unicodedata.category(c) == "Cf"
        wanted = runs[-1][0] if at_once else _font_for(ord(c))
        if wanted is None:
            return None
        if runs and runs[-1][0] == wanted:
            runs[-1] = wanted, runs[-1][1] + c
        else:
            runs.append((wanted, c))
    return tuple((_font(path, size), part) for path, part in runs)


def _is_selector(character: str) -> bool:
    """Variation selectors, which choose between the looks of a character."""
    return "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef"


@functools.cache
def _font_for(code: int) -> Path | None:
    return next((path for path, characters in _fonts() if code in characters), None)


def _fonts() -> Iterator[tuple[Path, frozenset[int]]]:
    """Fonts with the characters they have: Matplotlib's own first, then the system's, each opened only if asked for."""
    yield from ((path, characters) for path in _font_files() if (characters := _characters(path)))


@functools.cache
def _font_files() -> tuple[Path, ...]:
    own = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
    found = sorted(Path(file) for file in font_manager.findSystemFonts() if not _UNFIT.search(Path(file).stem))
    return (own, *sorted(found, key=lambda path: bool(_STYLED.search(path.stem))))


@functools.cache
def _characters(path: Path) -> frozenset[int]:
    try:
        font = FT2Font(str(path))
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except (OSError, RuntimeError):  # a damaged font
        return frozenset()


@functools.cache
def _font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), size)


@functools.cache
def _shapes() -> bool:
    """Whether Pillow can join letters and write from right to left here."""
    return bool(features.check_feature("raqm"))
