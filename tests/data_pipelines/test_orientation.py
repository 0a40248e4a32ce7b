"""Photos that an EXIF tag turns: masks of the photo as stored turn with it, others stay."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from data_pipelines.folder import FolderSource
from data_pipelines.orientation import exif_remark, orientation
from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary import Vocabulary

LABELS = Vocabulary(("ground", "quarter"), (), ()).label_set()


def turned_photo(turn, size=(32, 48), file_format="JPEG"):
    """A white photo whose upper left quarter, as stored, is black."""
    pixels = np.full((*size, 3), 255, np.uint8)
    pixels[: size[0] // 2, : size[1] // 2] = 0
    exif = Image.Exif()
    exif[0x112] = turn
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format, exif=exif, quality=95)
    return file.getvalue()


def mask_as_stored(size=(32, 48)):
    mask = np.zeros(size, np.uint8)
    mask[: size[0] // 2, : size[1] // 2] = 1
    return mask


def example(folder, photo, mask, ending="jpg"):
    for part in ("images", "masks"):
        (folder / part / "train").mkdir(parents=True)
    (folder / "images" / "train" / f"a.{ending}").write_bytes(photo)
    Image.fromarray(mask).save(folder / "masks" / "train" / "a.png")
    (folder / "classes.txt").write_text("ground\nquarter\n")
    return FolderSource(folder, "train", LABELS, masks=True, tags=False)[0]


def assert_fits(found):
    dark = cv2.cvtColor(found["image"], cv2.COLOR_RGB2GRAY) < 128
    np.testing.assert_array_equal(found["label"] == 1, dark)


@pytest.mark.parametrize("turn", [5, 6, 7, 8])
@pytest.mark.parametrize(("file_format", "ending"), [("JPEG", "jpg"), ("PNG", "png")])
def test_masks_drawn_on_the_stored_photo_turn_with_it(tmp_path, turn, file_format, ending):
    found = example(tmp_path, turned_photo(turn, file_format=file_format), mask_as_stored(), ending)
    assert found["image"].shape == (48, 32, 3)
    assert_fits(found)


@pytest.mark.parametrize("turn", range(1, 9))
def test_masks_drawn_on_the_shown_photo_stay(tmp_path, turn):
    shown = cv2.imdecode(np.frombuffer(turned_photo(turn), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert_fits(example(tmp_path, turned_photo(turn), (shown < 128).astype(np.uint8)))


@pytest.mark.parametrize("turn", [1, 3])
def test_a_mask_across_a_photo_that_is_not_turned_is_refused(tmp_path, turn):
    with pytest.raises(UserError, match=r"a\.png: mask of 32x48 pixels for a photo of 48x32"):
        example(tmp_path, turned_photo(turn), mask_as_stored((48, 32)))


def test_what_the_doctor_says_of_it():
    long, tall, square = (32, 48), (48, 32), (32, 32)
    assert orientation(turned_photo(6)) == 6
    assert orientation(b"no photo") == 1
    assert exif_remark(long, long, turned_photo(1)) == ""
    assert exif_remark(tall, tall, turned_photo(6)) == ""  # drawn on the photo as shown
    assert exif_remark((30, 30), tall, turned_photo(6)) == ""  # another size, which is its own fault
    for mask, shown, turn, words in (
        (long, tall, 6, "EXIF orientation 6: the mask has the size of the photo as stored and is turned with it"),
        (long, long, 3, "EXIF orientation 3: the mask is taken to show the photo turned, its size does not tell"),
        (square, square, 8, "EXIF orientation 8: the mask is taken to show the photo turned, its size does not tell"),
    ):
        assert exif_remark(mask, shown, turned_photo(turn)) == words
