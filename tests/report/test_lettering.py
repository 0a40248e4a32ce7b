"""Names in pictures: drawn in a font that has their letters, or not at all."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from larvseg_jax.predict import drawing, files
from larvseg_jax.predict.predictor import Prediction
from larvseg_jax.predict.segmentation import Segmentation
from larvseg_jax.report import lettering

UNKNOWN = "\U0001f9ff\U00013000"  # no font of Matplotlib has these


@pytest.fixture
def only_own_font(monkeypatch):
    """As on a machine without fonts."""
    monkeypatch.setattr(lettering.font_manager, "findSystemFonts", lambda: [])
    for cached in (lettering._font_files, lettering._font_for):
        cached.cache_clear()
    yield
    for cached in (lettering._font_files, lettering._font_for):
        cached.cache_clear()


def drawn(text, width=268):
    page = Image.new("RGB", (400, 30), "white")
    lettering.draw_text(ImageDraw.Draw(page), (4, 4), text, width)
    return np.asarray(page)[..., 0] < 128


@pytest.mark.parametrize("text", ["sky", "straße", "Привет", "Ωμέγα", '[red] & "x" <y>', "a\nb"])
def test_letters_of_the_bundled_font_need_no_other(only_own_font, text):
    assert lettering.can_draw(text)
    assert drawn(text).any()


def test_what_no_font_has_is_known_and_named_by_its_number(only_own_font, tmp_path, monkeypatch):
    texts = []
    monkeypatch.setattr(drawing, "draw_text", lambda draw, place, text, width, size: texts.append(text))
    labels = np.zeros((4, 6, 1), np.int32)
    labels[:, 3:] = 2
    names = ("猫", "unseen", f"x {UNKNOWN}")
    found = Segmentation.of([Prediction(names, labels, np.zeros(labels.shape, np.float32), None)], (4, 6))
    files.write(tmp_path / "x.png", "p.png", np.zeros((4, 6, 3), np.uint8), found, "")
    assert [text.split("%  ")[1] for text in texts] == ["class 0", "class 2"]
    assert files.without_letters(found) == ["猫", f"x {UNKNOWN}"]


def test_no_box_is_drawn_for_any_letter(only_own_font):
    box = ImageFont.truetype(str(lettering._font_files()[0]), 14).getmask("\U00013000")
    box = np.asarray(box).reshape(box.size[::-1])
    for text in ("sky ☃", "قطة", "❤\ufe0f", "é", "e\u0301"):
        if lettering.can_draw(text):
            page = drawn(text)
            height, width = box.shape
            places = np.lib.stride_tricks.sliding_window_view(page, (height, width))
            assert not (places == (box > 127)).all((2, 3)).any()


def test_another_font_is_found_for_what_the_bundled_one_lacks(only_own_font, monkeypatch):
    own = lettering._font_files()[0]
    other = own.with_name("STIXGeneral.ttf")
    monkeypatch.setattr(lettering.font_manager, "findSystemFonts", lambda: [str(other)])
    lettering._font_files.cache_clear()
    missing = next(chr(c) for c in sorted(lettering._characters(other) - lettering._characters(own)) if c > 0x2000)
    for text in (missing, f"sky {missing} Ж"):
        assert lettering.can_draw(text)
        assert drawn(text).any()


def test_a_long_name_is_cut_to_the_width():
    page = drawn("a very long name of a class that goes on and on", 120)
    assert page[:, :124].any()
    assert not page[:, 126:].any()


def test_without_shaping_what_runs_to_the_left_is_not_drawn(monkeypatch):
    monkeypatch.setattr(lettering, "_shapes", lambda: False)
    assert not lettering.can_draw("قطة")
    assert not lettering.can_draw("חתול")
    assert lettering.can_draw("cat")
