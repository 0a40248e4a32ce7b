"""Where attention lies, on maps made by hand; and the README's picture, drawn from them."""

import types

import cv2
import numpy as np
import pytest

from benchmarks import quickstart_picture
from benchmarks.attention_on_objects import Looked, look
from larvseg_jax.errors import UserError
from larvseg_jax.report.attention import by_class, on_photo
from larvseg_jax.report.cards import GalleryItem
from tests import tiny

NAMES = ("water", "fish", "kite")


def photo(tag: str, box: tuple[slice, slice], attention: np.ndarray) -> GalleryItem:
    """16 x 16 pixels of water with one object."""
    truth = np.zeros((16, 16), np.int32)
    truth[box] = NAMES.index(tag)
    maps = ((f"attention: {tag}", attention), ("attention: water", 1 - attention))
    image = np.full((16, 16, 3), 90, np.uint8)
    return GalleryItem(f"{tag}", image, np.zeros((16, 16), np.int32), truth, maps)


def looked_at(*photos: GalleryItem) -> Looked:
    return Looked(types.SimpleNamespace(names=NAMES), frozenset({"fish", "kite"}), list(photos))


TOP_LEFT, BOTTOM = (slice(0, 8), slice(0, 8)), (slice(12, 16), slice(0, 16))


def test_inside_and_outside_agree_with_another_enlargement():
    attention = np.random.default_rng(0).random((4, 4))
    shown = np.zeros((16, 24), bool)
    shown[3:9, 5:20] = True
    fine = cv2.resize(attention, (24, 16), interpolation=cv2.INTER_LINEAR)
    inside, outside, point, purity, area = on_photo(attention, shown)
    most = sorted(fine.ravel(), reverse=True)[: round(0.05 * fine.size)]
    assert purity == pytest.approx(np.mean([shown[y, x] for y, x in np.argwhere(fine >= most[-1] - 1e-7)]), abs=0.06)
    assert area == shown.mean()
    assert inside == pytest.approx(np.mean([fine[y, x] for y, x in np.argwhere(shown)]), abs=1e-5)
    assert outside == pytest.approx(np.mean([fine[y, x] for y, x in np.argwhere(~shown)]), abs=1e-5)
    assert point == shown[np.unravel_index(fine.argmax(), fine.shape)]


def test_a_map_that_knows_and_one_that_does_not():
    corner = np.zeros((2, 2))
    corner[0, 0] = 1.0
    flat = np.full((2, 2), 0.5)
    photos = [photo("fish", TOP_LEFT, corner), photo("fish", BOTTOM, corner), photo("kite", BOTTOM, flat)]
    found = by_class(photos, NAMES, {"fish", "kite"})
    assert list(found) == ["fish", "kite"]  # water is no novel class
    count, (inside, outside, point, purity, area) = found["fish"]
    assert (count, point, area) == (2, 0.5, 0.25)
    assert purity == 0.5  # all of the most attended pixels of the first photo, none of the second
    # Enlarged, a row of [1, 0] is 1 for four pixels, then falls by an eighth a pixel: the box has a mean of (7 / 8)².
    ramp = np.array([1.0] * 4 + [1 - (i + 0.5) / 8 for i in range(8)] + [0.0] * 4)
    fine = np.outer(ramp, ramp)
    assert inside == pytest.approx(((7 / 8) ** 2 + 0) / 2)
    beside = (fine.sum() - fine[:8, :8].sum()) / 192
    assert outside == pytest.approx((beside + fine[:12].mean()) / 2)
    assert found["kite"][1][:2] == pytest.approx((0.5, 0.5))


def test_a_picture_is_drawn_of_the_first_photo_of_a_class(tmp_path):
    looked = looked_at(
        photo("fish", BOTTOM, np.eye(2)), photo("kite", TOP_LEFT, np.eye(2)), photo("kite", BOTTOM, np.eye(2))
    )
    assert [quickstart_picture.first_with(looked, name) for name in ("kite", "fish")] == [1, 0]
    with pytest.raises(UserError, match="no photo of the evaluation shows bird"):
        quickstart_picture.first_with(looked, "bird")
    quickstart_picture.draw(looked, looked, [1, 0], tmp_path / "picture.png")
    height, width, _ = cv2.imread(str(tmp_path / "picture.png")).shape
    assert 0.4 < height / width < 0.5  # two rows of five


@pytest.mark.slow
def test_a_run_is_looked_at(tmp_path):
    config = tiny.get_config()
    config.data_root, config.workdir = str(tiny.write_data(tmp_path / "data").parent), str(tmp_path / "run")
    tiny.save_untrained(config)
    looked = look(tmp_path / "run")
    assert len(looked.photos) == tiny.VALIDATION
    found = by_class(looked.photos, looked.summary.names, looked.novel)
    assert found
    assert set(found) <= set(tiny.NOVEL)
    assert all(0 < share < 1 for _, on in found.values() for share in (on.inside, on.outside, on.area))
