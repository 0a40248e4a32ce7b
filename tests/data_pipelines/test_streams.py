"""The batch of step i: a pure function of (seed, i), whoever asks for it and however."""

import itertools

import numpy as np
import pytest

from data_pipelines.streams import Stream, iterate, step_batches, stream_seed
from data_pipelines.views import MaskView, TagView
from larvseg_jax.config import from_config
from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary import Vocabulary
from tests import tiny

LABELS = Vocabulary(tuple(f"class {i}" for i in range(9)), (), ()).label_set()


def photos(count=10, seed=0):
    """A list is a source: photos with blocky labels and tags of their own."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        height, width = rng.integers(20, 40, 2)
        label = np.kron(rng.integers(-1, 9, (10, 10)), np.ones((4, 4), np.int32))[:height, :width].astype(np.int32)
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        tags = np.sort(rng.choice(9, rng.integers(1, 5), replace=False)).astype(np.int32)
        found.append({"id": f"photo-{i}", "image": image, "label": label, "tags": tags})
    return found


def stream(kind="masks", source=None, batch_size=4, **changes):
    options = dict(crop_size=16, scale=(64, 24)) | changes
    if kind == "tags":
        view = TagView(**dict(max_labels=12, tags_from="image") | options)
    else:
        view = MaskView(**options)
    return Stream(photos() if source is None else source, LABELS, view, batch_size)


def both(**changes):
    return {"dense": stream(), "weak": stream("tags", source=photos(7, seed=1), batch_size=8, **changes)}


def batches(streams=None, seed=0, total_steps=6, **changes):
    return step_batches(streams or both(), seed=seed, total_steps=total_steps, **changes)


def assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert ours[name].keys() == theirs[name].keys()
        for key in ours[name]:
            np.testing.assert_array_equal(ours[name][key], theirs[name][key])


def test_shapes_types_and_fixed_shares():
    dataset = batches()
    assert len(dataset) == 6
    for batch in (dataset[0], dataset[5]):
        assert list(batch) == ["dense", "weak"]
        for name, size in (("dense", 4), ("weak", 8)):
            assert batch[name]["image"].shape == (size, 16, 16, 3)
            assert batch[name]["image"].dtype == np.uint8
            assert batch[name]["valid"].dtype == np.bool_
            assert batch[name]["valid"].shape == (size,)
            assert batch[name]["valid"].all()
            assert all(isinstance(i, str) and i.startswith("photo-") for i in batch[name]["id"].tolist())
        assert batch["dense"].keys() == {"image", "image_extent", "label", "valid", "id"}
        assert batch["dense"]["label"].shape == (4, 8, 8)
        assert batch["dense"]["label"].dtype == np.int32
        assert batch["weak"].keys() == {"image", "image_extent", "tags", "valid", "id"}
        assert batch["weak"]["tags"].shape == (8, 12)
        assert batch["weak"]["tags"].dtype == np.int32


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_iteration_equals_indexing(threads):
    dataset = batches()
    found = list(iterate(dataset, 0, threads))
    assert len(found) == 6
    for step, batch in enumerate(found):
        assert_equal(batch, dataset[step])


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("threads", [0, 3])
def test_blocks_of_processes_make_the_whole_batch(count, threads):
    parts = [iterate(batches(process_index=p, process_count=count), 0, threads) for p in range(count)]
    for whole, *blocks in zip(batches(), *parts, strict=True):
        joined = {name: {key: np.concatenate([b[name][key] for b in blocks]) for key in whole[name]} for name in whole}
        assert_equal(joined, whole)


@pytest.mark.parametrize("start", [1, 3, 5])
def test_resumes_at_any_step(start):
    uninterrupted = list(iterate(batches(), 0, 2))[start:]
    resumed = list(iterate(batches(), start, 3))
    assert len(resumed) == len(uninterrupted) == 6 - start
    for ours, theirs in zip(resumed, uninterrupted, strict=True):
        assert_equal(ours, theirs)


def test_nothing_is_left_after_the_last_step():
    assert list(iterate(batches(), 6, 2)) == []


def test_total_steps_do_not_change_the_batches():
    assert_equal(batches(total_steps=500)[5], batches()[5])


def test_every_epoch_has_each_photo_once_in_another_order():
    dataset = batches({"a": stream(batch_size=2)}, total_steps=20)
    ids = np.concatenate([dataset[i]["a"]["id"] for i in range(20)]).reshape(4, 10)
    for epoch in ids:
        assert sorted(epoch) == sorted(f"photo-{i}" for i in range(10))
    for first, second in itertools.combinations(ids.tolist(), 2):
        assert first != second


def test_each_epoch_is_augmented_anew():
    dataset = batches({"a": stream(source=photos(1), batch_size=1)}, total_steps=6)
    crops = [dataset[i]["a"]["image"] for i in range(6)]
    for first, second in itertools.combinations(crops, 2):
        assert not np.array_equal(first, second)


def test_seed_decides_and_streams_do_not_touch_each_other():
    alone = batches({"dense": stream()})
    assert_equal(alone[3], {"dense": batches()[3]["dense"]})
    assert not np.array_equal(batches(seed=1)[3]["dense"]["image"], alone[3]["dense"]["image"])
    renamed = batches({"other": stream()})[3]["other"]
    assert not np.array_equal(renamed["image"], alone[3]["dense"]["image"])
    # printf 0/dense | sha256sum, first four bytes; other numbers would change every run's data
    assert stream_seed(0, "dense") == int.from_bytes(bytes.fromhex("04463a32"), "little")


def tags_of(row):
    return row[row >= 0].tolist()


def test_tags_from_image_are_the_photos():
    tags = {p["id"]: p["tags"].tolist() for p in photos(7, seed=1)}
    batch = batches()[0]["weak"]
    for photo, row in zip(batch["id"], batch["tags"], strict=True):
        assert row.tolist() == tags[photo] + [-1] * (12 - len(tags[photo]))


def test_tags_from_crop_are_those_of_the_loss_grid():
    dense = batches({"a": stream(category_ratio=1.0)})
    weak = batches({"a": stream("tags", category_ratio=1.0, tags_from="crop")})
    whole = {p["id"]: set(np.unique(p["label"])) for p in photos()}
    cut = 0
    for step in range(6):
        label, tags, ids = dense[step]["a"]["label"], weak[step]["a"]["tags"], weak[step]["a"]["id"]
        np.testing.assert_array_equal(weak[step]["a"]["image"], dense[step]["a"]["image"])
        for pixels, row, photo in zip(label, tags, ids, strict=True):
            assert tags_of(row) == sorted(set(np.unique(pixels)) - {-1})
            cut += set(tags_of(row)) < whole[photo] - {-1}
    assert cut > 2


def test_a_class_between_the_loss_grid_is_no_tag():
    label = np.zeros((16, 16), np.int32)
    label[:, 1::2] = 5  # columns that every second pixel skips, unless flipped
    image = np.zeros((16, 16, 3), np.uint8)
    source = [{"id": "x", "image": image, "label": label}]
    options = dict(scale=(16, 16), ratio_range=(1.0, 1.0), tags_from="crop", batch_size=1)
    dataset = batches({"a": stream("tags", source=source, **options)}, total_steps=20)
    assert {tuple(tags_of(dataset[i]["a"]["tags"][0])) for i in range(20)} == {(0,), (5,)}


def test_always_tags_are_added_in_order():
    plain, more = batches()[2]["weak"], batches(both(always_tags=("class 8", "class 0")))[2]["weak"]
    for before, after in zip(plain["tags"], more["tags"], strict=True):
        assert tags_of(after) == sorted({0, 8, *tags_of(before)})
        assert after.tolist() == tags_of(after) + [-1] * (12 - len(tags_of(after)))


@pytest.mark.parametrize("threads", [0, 2])
def test_too_many_tags_name_the_photo_and_the_number(threads):
    source = photos(3)
    source[1]["tags"] = np.arange(9, dtype=np.int32)
    dataset = batches({"a": stream("tags", source=source, max_labels=8)})
    with pytest.raises(UserError, match=r"photo 'photo-1' has 9 tags and max_labels is 8: .* at least 9") as caught:
        list(iterate(dataset, 0, threads))
    assert "\n" not in str(caught.value)
    assert len(list(iterate(batches({"a": stream("tags", source=source, max_labels=9)}), 0, 2))) == 6


class Broken(list):
    """A source whose fourth photo cannot be read."""

    def __getitem__(self, index):
        if index == 3:
            raise UserError("images/4.jpg: no readable picture")
        return super().__getitem__(index)


@pytest.mark.parametrize("threads", [0, 2])
def test_errors_of_a_source_arrive_as_they_are(threads):
    dataset = batches({"a": stream(source=Broken(photos()))})
    with pytest.raises(UserError, match="no readable picture") as caught:
        list(iterate(dataset, 0, threads))
    assert str(caught.value) == "images/4.jpg: no readable picture"


def test_batch_that_processes_do_not_divide():
    with pytest.raises(UserError, match="stream 'dense': batch_size 4 is no multiple of the 3 processes: use 6"):
        batches(process_count=3)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        (
            "streams.masks.kind",
            "boxes",
            "streams.masks.kind is 'boxes': use 'masks' or 'tags' or 'masks_and_tags' or 'captions'",
        ),
        ("streams.tags.tags_from", "photo", "streams.tags.tags_from is 'photo': use 'crop' or 'image'"),
        ("streams.masks.crop_size", 15, "streams.masks: crop_size=15 is not a multiple of downsample_rate=2"),
        ("streams.tags.batch_size", 0, "streams.tags.batch_size is 0: use 1 or more"),
        ("streams.tags.max_labels", 0, "streams.tags.max_labels is 0: use 1 or more"),
        ("streams.masks.downsample_rate", 0, "streams.masks.downsample_rate is 0: use 1 or more"),
    ],
)
def test_wrong_options_are_named(option, value, message):
    config = tiny.get_config()
    config.update_from_flattened_dict({option: value})
    with pytest.raises(UserError) as caught:
        from_config(config)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("kind", "option", "there"),
    [
        ("masks", "max_labels", "source, classes, class_list, batch_size, rare_below, scale"),  # an option of tags
        ("tags", "crop_sise", "crop_size, category_ratio, downsample_rate, tags_from"),
    ],
)
def test_options_of_another_kind_are_refused(kind, option, there):
    config = tiny.get_config().to_dict()
    config["streams"][kind][option] = 3
    with pytest.raises(UserError) as caught:
        from_config(config)
    assert f"there is no option streams.{kind}.{option}: a stream of {kind} has " in str(caught.value)
    assert there in str(caught.value)
    assert "\n" not in str(caught.value)
