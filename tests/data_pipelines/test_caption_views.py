"""Rows of a stream of captions: their pictures against pixels worked out by hand, and that (seed, i) decide all."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from data_pipelines.caption_views import CaptionView, recoloured
from data_pipelines.random_crops import brighter, contrasted, hue_turned, jittered, random_box, resized_crop, saturated
from data_pipelines.rows import ArraySpec
from data_pipelines.streams import Stream, StreamConfig, iterate, stack, step_batches
from data_pipelines.transforms import MEAN, STD
from larvseg_jax.config import from_config
from larvseg_jax.errors import UserError
from larvseg_jax.models.flip import flip_back
from larvseg_jax.options import defaults, read
from larvseg_jax.text.tokenizer import TokenizerConfig
from larvseg_jax.vocabulary import Vocabulary
from tests import tiny

LABELS = Vocabulary(("sheep", "grass"), (), ()).label_set()
WORDS = ("a", "sheep", "on", "grass", "red", "ball")
TEXT = TokenizerConfig("words", WORDS, 6)
PLAIN = dict(flip=False, jitter=0.0, grey=0.0, blur=0.0)


def photo(i=0, shape=(24, 40), captions=("a sheep on grass", "a red ball")):
    pixels = np.random.default_rng(i).integers(0, 256, (*shape, 3), dtype=np.uint8)
    return {"id": f"photo-{i}", "image": pixels, "captions": captions}


def view(**changes):
    return CaptionView(**dict(crop_size=16, text=TEXT) | changes)


EVERYTHING = dict(local_views=3, local_size=8, recoloured=True)


def batches(total_steps=6, seed=0, **changes):
    source = [photo(i, (20 + i, 30 - i)) for i in range(7)]
    streams = {"pairs": Stream(source, LABELS, view(**EVERYTHING), 4)}
    return step_batches(streams, seed=seed, total_steps=total_steps, **changes)


def written(row):
    return {name: array[0] for name, array in stack([row]).items()}


def row(example, seed=0, **changes):
    return written(view(**changes).row(example, np.random.default_rng(seed), LABELS))


def normalised(pixels):
    return (pixels - MEAN) / STD


def assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for key in ours:
        np.testing.assert_array_equal(ours[key], theirs[key])


def test_a_row_is_what_the_spec_says():
    for changes in ({}, dict(local_views=3, local_size=8), dict(recoloured=True), EVERYTHING):
        found, spec = row(photo(), **changes), view(**changes).spec()
        assert {
            k: ArraySpec(v.shape, str(v.dtype), 0, k in ("image", "locals", "recoloured")) for k, v in found.items()
        } == spec
    assert spec.keys() == {"image", "tokens", "locals", "recoloured", "flipped"}


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (16, 16)])
def test_the_whole_area_without_changes_is_the_middle_square(shape):
    found = row(photo(shape=shape), scale=(1.0, 1.0), ratio=(1.0, 1.0), crop_size=min(shape), **PLAIN)["image"]
    top, left = (shape[0] - min(shape)) // 2, (shape[1] - min(shape)) // 2
    square = photo(shape=shape)["image"][top : top + min(shape), left : left + min(shape)]
    np.testing.assert_array_equal(found, square)


def test_half_the_crops_are_mirrored():
    options = PLAIN | dict(scale=(1.0, 1.0), ratio=(1.0, 1.0), crop_size=24, flip=True)
    upright = row(photo(shape=(24, 24)), **options | {"flip": False})["image"]
    kinds = [row(photo(shape=(24, 24)), seed, **options)["image"] for seed in range(40)]
    mirrored = [np.array_equal(found, upright[:, ::-1]) for found in kinds]
    assert all(m or np.array_equal(found, upright) for m, found in zip(mirrored, kinds, strict=True))
    assert 10 < sum(mirrored) < 30


def test_boxes_have_the_shares_and_proportions_asked_for_and_lie_anywhere():
    rng = np.random.default_rng(0)
    boxes = np.array([random_box((300, 400), rng, (0.05, 0.4), (0.75, 4 / 3)) for _ in range(800)])
    top, left, height, width = boxes.T
    share, proportion = height * width / 120_000, width / height
    assert 0.048 < share.min() < 0.07
    assert 0.37 < share.max() < 0.405
    assert abs(share.mean() - 0.225) < 0.02
    assert 0.74 < proportion.min() < 0.77
    assert 1.3 < proportion.max() < 1.35
    assert abs(np.log(proportion).mean()) < 0.03
    assert top.min() >= 0
    assert (top + height).max() == 300
    assert left.min() == 0
    wide = [random_box((300, 400), rng, (0.2, 0.3), (1.9, 2.1)) for _ in range(20)]
    assert all(1.8 < w / h < 2.2 for _, _, h, w in wide)
    assert (left + width).max() <= 400


@pytest.mark.parametrize(("shape", "box"), [((10, 100), (0, 43, 10, 13)), ((100, 10), (43, 0, 13, 10))])
def test_a_photo_too_narrow_for_any_box_gives_its_middle(shape, box):
    assert random_box(shape, np.random.default_rng(0), (0.9, 1.0), (0.75, 4 / 3)) == box


def test_a_smaller_crop_averages():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    crop = resized_crop(pixels, np.random.default_rng(0), 8, (1.0, 1.0), (1.0, 1.0), flip=False)
    means = pixels.reshape(8, 4, 8, 4, 3).mean((1, 3))
    np.testing.assert_allclose(crop, means, atol=0.51)


def test_colours_by_hand():
    pixels = photo()["image"]
    grey = pixels @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(brighter(pixels, 1.4), (1.4 * pixels).clip(0, 255), atol=0.5)
    np.testing.assert_allclose(contrasted(pixels, 0.7), 0.7 * pixels + 0.3 * grey.mean(), atol=0.51)
    expected = (1.2 * pixels - 0.2 * grey[..., None]).clip(0, 255)
    np.testing.assert_allclose(saturated(pixels, 1.2), expected, atol=1.0)  # OpenCV's weights are of few bits
    assert np.ptp(saturated(pixels, 0.0), axis=-1).max() == 0
    pure = np.array([[[255, 0, 0], [0, 255, 0]]], np.uint8)
    assert hue_turned(pure, 1 / 3).tolist() == [[[0, 255, 0], [0, 0, 255]]]


def test_shares_of_jitter_grey_and_blur():
    pixels = photo(shape=(160, 224))["image"]
    for odds, name in (((0.8, 0.0, 0.0), "jitter"), ((0.0, 0.2, 0.0), "grey"), ((0.0, 0.0, 0.5), "blur")):
        options = dict(zip(("jitter", "grey", "blur"), odds, strict=True))
        found = [jittered(pixels * 1, np.random.default_rng(i), **options) for i in range(200)]
        changed = np.mean([not np.array_equal(one, pixels) for one in found])
        assert abs(changed - max(odds)) < 0.09, name  # a blur of less than a sixth of a pixel changes nothing


def test_jitter_and_grey_fall_on_different_crops():
    pixels = photo()["image"]
    kinds = set()
    for seed in range(60):
        found = jittered(pixels, np.random.default_rng(seed), jitter=0.5, grey=0.5, blur=0.0)
        kinds.add(
            (
                bool(np.ptp(found, axis=-1).max() == 0),
                any(np.array_equal(found, x) for x in (pixels, saturated(pixels, 0.0))),
            )
        )
    assert len(kinds) == 4


def test_small_crops_have_their_own_scale():
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None], (256, 256, 3)).copy()
    example = {"id": "ramp", "image": ramp, "captions": ("a",)}
    options = PLAIN | dict(scale=(1.0, 1.0), ratio=(1.0, 1.0), local_views=4, local_size=8, local_scale=(0.04, 0.04))
    found = row(example, crop_size=256, **options)
    assert np.ptp(found["image"], axis=1).max() > 254
    assert all(40 < np.ptp(crop) < 51 for crop in found["locals"])  # a fifth of the side


def test_the_clustering_view_is_the_crop_in_other_colours():
    pixels = np.stack([np.arange(256, dtype=np.uint8).reshape(16, 16)] * 3, -1)
    pixels[..., 1] = pixels[::-1, :, 1]
    seen, factors, offsets = set(), [], []
    for seed in range(60):
        picture, flipped = recoloured(pixels, np.random.default_rng(seed))
        found = np.empty(picture.shape, np.float32)
        picture.write(found)
        levels = (found * STD + MEAN) / 255
        if flipped:
            levels = levels[:, ::-1]
        seen.add(bool(flipped))
        for channel in range(3):
            (factor, offset), rest = np.polyfit(
                pixels[..., channel].ravel() / 255, levels[..., channel].ravel(), 1, full=True
            )[:2]
            assert rest.max(initial=0) < 1e-6
            factors.append(factor)
            offsets.append(offset)
    assert seen == {False, True}
    assert 0.6 <= min(factors) < 0.65
    assert 1.35 < max(factors) <= 1.4
    assert -0.2 - 1e-5 <= min(offsets) < -0.18
    assert 0.18 < max(offsets) <= 0.2 + 1e-5
    assert len({round(f, 4) for f in factors}) > 170  # one for each channel


def test_the_clustering_view_is_of_the_row_s_own_crop():
    for seed in range(5):
        found = row(photo(), seed, recoloured=True)
        levels = [found["image"], found["recoloured"][:, ::-1] if found["flipped"] else found["recoloured"]]
        for channel in range(3):
            x, y = (one[..., channel].ravel() for one in levels)
            assert np.corrcoef(x, y)[0, 1] > 0.9999


def test_further_crops_leave_the_first_alone():
    plain, more = row(photo(), 3), row(photo(), 3, **EVERYTHING)
    assert_equal({k: more[k] for k in plain}, plain)
    assert len({crop.tobytes() for crop in more["locals"]}) == 3


def test_a_caption_is_drawn_anew_each_time():
    found = [row(photo(), seed)["tokens"].tolist() for seed in range(30)]
    start, end = len(WORDS) + 1, len(WORDS) + 2
    sheep, ball = [start, 0, 1, 2, 3, end], [start, 0, 4, 5, end, 0]
    assert {tuple(one) for one in found} == {tuple(sheep), tuple(ball)}
    assert 8 < found.count(sheep) < 22


def test_mirrored_back_features_of_a_mirrored_picture_are_those_of_the_picture():
    """For a map that does to each patch the same, whatever its place and side."""
    rng = np.random.default_rng(0)
    pictures, weights = rng.normal(size=(5, 8, 12, 3)), rng.normal(size=(3, 7))

    def features(pixels):
        return jnp.asarray(np.tanh(pixels.reshape(len(pixels), 4, 2, 6, 2, 3).mean((2, 4)) @ weights))

    flipped = np.array([True, False, True, True, False])
    seen = np.where(flipped[:, None, None, None], pictures[:, :, ::-1], pictures)
    back = flip_back(features(seen), jnp.asarray(flipped))
    np.testing.assert_allclose(back, features(pictures), rtol=1e-6)
    assert not np.allclose(features(seen), features(pictures))
    labels = jnp.arange(24).reshape(2, 3, 4)
    expected = [[[3, 2, 1, 0], [7, 6, 5, 4], [11, 10, 9, 8]], np.arange(12, 24).reshape(3, 4).tolist()]
    assert flip_back(labels, jnp.array([True, False])).tolist() == expected


@pytest.mark.parametrize("threads", [0, 3])
def test_threads_do_not_change_batches(threads):
    dataset = batches()
    for step, batch in enumerate(iterate(dataset, 2, threads), 2):
        assert_equal(batch["pairs"], dataset[step]["pairs"])
    assert batch["pairs"]["locals"].shape == (4, 3, 8, 8, 3)


@pytest.mark.parametrize("count", [2, 4])
def test_blocks_of_processes_make_the_whole_batch(count):
    parts = [batches(process_index=p, process_count=count)[3]["pairs"] for p in range(count)]
    whole = batches()[3]["pairs"]
    assert_equal({key: np.concatenate([part[key] for part in parts]) for key in whole}, whole)
    assert not np.array_equal(batches(seed=1)[3]["pairs"]["image"], whole["image"])


def test_options_are_read_and_wrong_ones_named():
    section = dict(defaults(CaptionView)) | dict(text=dict(kind="words", words=["a"], context=5), local_views=6)
    assert read(CaptionView, section) == CaptionView(text=TokenizerConfig("words", ("a",), 5), local_views=6)
    for name, value, what in (
        ("scale", (0.5, 0.4), r"scale is \(0.5, 0.4\): give two numbers above 0"),
        ("scale", (0.5, 1.4), r"scale is \(0.5, 1.4\)"),
        ("local_scale", (0.0, 0.4), "local_scale is"),
        ("ratio", (2.0, 1.0), "ratio is"),
        ("grey", 1.5, "grey is 1.5: give a share of the crops, 0 to 1"),
        ("local_views", -1, "local_views is -1: use 0 or more"),
    ):
        with pytest.raises(UserError, match=what):
            read(CaptionView, section | {name: value})


def test_rare_classes_are_not_those_of_captions():
    with pytest.raises(UserError, match="rare_below goes by the classes of photos, and captions have none"):
        StreamConfig(CaptionView(), None, rare_below=0.1)


def test_larvseg_refuses_captions():
    config = tiny.get_config()
    config.streams.pairs = common.caption_stream(crop_size=16)
    with pytest.raises(UserError, match="LarvSeg learns from masks and tags: a stream of captions teaches it nothing"):
        from_config(config)


def test_a_config_s_stream_has_the_options_of_its_method():
    @dataclasses.dataclass(frozen=True)
    class Loss:
        weight: float = 2.0

    stream = common.caption_stream(Loss, weight=3.0, crop_size=64)
    assert (stream.kind, stream.weight, stream.crop_size, stream.text.kind) == ("captions", 3.0, 64, "clip")
    with pytest.raises(KeyError):
        common.caption_stream(weight=3.0)
