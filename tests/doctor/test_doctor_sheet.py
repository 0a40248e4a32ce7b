"""The contact sheet, decoded: colours where the masks have their classes, names, hatching, crops."""

import base64
import io
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from larvseg_jax.config import from_config
from larvseg_jax.doctor import set_report, sheet
from larvseg_jax.report import colours
from tests import tiny

SIDE = 240  # of a picture in the sheet


@pytest.fixture
def config(tmp_path):
    config = tiny.get_config()
    config.data_root, config.workdir = str(tiny.write_data(tmp_path).parent), str(tmp_path / "run")
    return config


def page(config, tmp_path) -> str:
    run = from_config(config)
    section = sheet.sheet_section(run, set_report.inspect(run, None), [], tmp_path / "sheet.html")
    assert section.facts["path"] == str(tmp_path / "sheet.html")
    return (tmp_path / "sheet.html").read_text()


def part(page: str, where: str) -> str:
    """What stands under the headline of a stream."""
    return page.partition(f"<h2>{where}</h2>")[2].partition("<h2>")[0]


def pictures(text: str, caption: str) -> list[np.ndarray]:
    urls = re.findall(rf'src="data:image/\w+;base64,([^"]+)" alt="{caption}"', text)
    return [np.array(Image.open(io.BytesIO(base64.b64decode(url)))) for url in urls]


def write_mask(folder: Path, stem: str) -> None:
    """Quarters: background and red, green at the bottom left; blue (which the masks stream ignores) beside it."""
    mask = np.zeros((32, 36), np.uint8)
    mask[:16, 18:] = 1
    mask[16:, :18] = 2
    mask[16:, 18:] = 3
    mask[:4] = 255
    mask[:2, :4] = 200
    Image.fromarray(mask).save(folder / "masks" / f"{stem}.png")


def at(picture: np.ndarray, row: float, column: float) -> list[int]:
    """Pixel at a place given in pixels of the small mask."""
    return picture[int(row * picture.shape[0] / 32), int(column * picture.shape[1] / 36)].tolist()


def colours_near(picture: np.ndarray, row: float, column: float) -> set[tuple[int, ...]]:
    """Colours within a few pixels, which all stripes of the hatching cross."""
    i, j = int(row * picture.shape[0] / 32), int(column * picture.shape[1] / 36)
    return {tuple(c) for c in picture[i : i + 4, j - 12 : j + 12].reshape(-1, 3).tolist()}


def test_masks_have_the_colours_and_names_of_their_classes(config, tmp_path):
    write_mask(tmp_path / "tiny", "p00")  # the first photo of the stream
    text = part(page(config, tmp_path), "streams.masks")
    masks = pictures(text, "mask")
    assert len(masks) == 4
    mask = masks[0]
    assert max(mask.shape[:2]) == SIDE
    palette = colours.class_colours(tiny.NAMES).tolist()
    assert at(mask, 10, 9) == palette[0]
    assert at(mask, 10, 27) == palette[1]
    assert at(mask, 24, 9) == palette[2]
    assert colours_near(mask, 24, 27) == {tuple(palette[3]), (255, 255, 255)}
    assert colours_near(mask, 3, 20) == {(150, 150, 150), (105, 105, 105)}
    assert at(mask, 0.5, 1) == [0, 0, 0]
    for name, style, rgb, share in (
        ("1 red", "plain", palette[1], 12 * 18),
        ("3 blue", "striped", palette[3], 16 * 18),
        ("255 unlabelled", "ignored", [150, 150, 150], 4 * 36 - 8),
        ("200: no class", "wrong", [0, 0, 0], 8),
    ):
        chip = f'swatch {style}" style="--c:#{bytes(rgb).hex()}"></i>{name} <small>{100 * share / 1152:.1f} %'
        assert chip in text


def test_photo_tags_and_names_are_there(config, tmp_path):
    text = part(page(config, tmp_path), "streams.tags")
    photo = np.array(Image.open(tmp_path / "tiny" / "images" / "p10.png"))
    shown = pictures(text, "photo")[0]
    expected = cv2.resize(photo, shown.shape[1::-1], interpolation=cv2.INTER_CUBIC).astype(int)
    assert np.abs(expected - shown).mean() < 12  # a JPEG
    assert "<b>p10</b>" in text
    mask = np.array(Image.open(tmp_path / "tiny" / "masks" / "p10.png"))
    names = [tiny.NAMES[i] for i in np.unique(mask) if i]
    assert f"tags: {', '.join(names)}" in text


def test_crops_are_those_of_the_pipeline(config, tmp_path):
    text = page(config, tmp_path)
    for where, size in (("streams.masks", 3), ("streams.tags", 3), ("evals.val", 0)):
        assert len(pictures(part(text, where), "crop")) == size
    assert all("background" in tags for tags in re.findall(r"tags: ([^<]*)<", part(text, "streams.tags"))[-3:])
    # Pixels of the crops' masks are colours of the stream's three classes or the grey of what is ignored.
    allowed = {*map(tuple, colours.class_colours(tiny.NAMES[:3]).tolist()), (150, 150, 150), (105, 105, 105)}
    for picture in pictures(part(text, "streams.masks"), "its mask"):
        assert {tuple(c) for c in np.unique(picture.reshape(-1, 3), axis=0).tolist()} <= allowed


def test_denormalised_is_the_inverse_of_the_pipeline(config, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    normalised = (pixels - np.array([123.675, 116.28, 103.53])) / np.array([58.395, 57.12, 57.375])
    np.testing.assert_array_equal(sheet.denormalised(normalised.astype(np.float32)), pixels)


def test_broken_photos_are_left_out_and_the_page_needs_nothing_else(config, tmp_path):
    (tmp_path / "tiny" / "images" / "p00.png").write_bytes(b"none")
    text = page(config, tmp_path)
    assert "<b>p00</b>" not in part(text, "streams.masks").partition("augmented crops")[0]
    assert len(pictures(part(text, "streams.masks"), "photo")) == 4
    assert not re.findall(r'(?:src|href)="(?!data:)', text)


def test_without_photos_there_is_no_sheet(config, tmp_path):
    config.data_root = str(tmp_path / "nowhere")
    run = from_config(config)
    section = sheet.sheet_section(run, set_report.inspect(run, None), [], tmp_path / "sheet.html")
    assert [f.level for f in section.findings] == ["note"]
    assert not (tmp_path / "sheet.html").exists()


def test_a_crop_is_shown_as_networks_get_it():
    levels = np.random.default_rng(0).integers(0, 256, (1, 5, 6, 3), np.uint8)
    batch = {"image": levels, "image_extent": np.array([[3, 4]], np.int32)}
    seen = sheet.as_seen(batch)
    np.testing.assert_array_equal(seen[:3, :4], levels[0, :3, :4])
    mean = [124, 116, 104]  # ImageNet's
    assert (seen[3:] == mean).all()
    assert (seen[:, 4:] == mean).all()
    np.testing.assert_array_equal(sheet.as_seen({"image": levels}), levels[0])
    assert levels[0, 3:].any()
