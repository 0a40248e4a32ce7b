"""Photos that cannot be used are replaced by others, the same whoever asks and however."""

import itertools

import numpy as np
import pytest

from data_pipelines.streams import iterate, step_batches
from larvseg_jax.config import from_config
from larvseg_jax.errors import DataError, UserError
from tests import tiny
from tests.data_pipelines.test_streams import assert_equal, photos, stream


class Broken(list):
    """A source some of whose photos cannot be read."""

    def __init__(self, photos, broken):
        super().__init__(photos)
        self.broken = set(broken)

    def __getitem__(self, index):
        if index in self.broken:
            raise DataError("unreadable", f"images/{index}.jpg: no readable picture", "replace it")
        return super().__getitem__(index)


def batches(broken, *, count=10, kind="masks", replace=True, total_steps=20, **changes):
    source = Broken(photos(count), broken)
    streams = {"a": stream(kind, source=source, **changes.pop("options", {}))}
    return step_batches(streams, seed=0, total_steps=total_steps, replace=replace, **changes)


def rows(dataset):
    """(step, place in the batch) -> id, unusable photos, pixels."""
    found = {}
    for step in range(len(dataset)):
        batch = dataset[step]["a"]
        for place, row in enumerate(zip(batch["id"], batch["unusable"], batch["image"], strict=True)):
            found[step, place] = row
    return found


def test_only_the_places_of_photos_that_cannot_be_used_change():
    whole = rows(batches(()))
    replaced = rows(batches((3, 7)))
    assert all(unusable == () for _, unusable, _ in whole.values())
    others = set()
    for place, (photo, unusable, pixels) in replaced.items():
        if whole[place][0] in ("photo-3", "photo-7"):
            first = int(whole[place][0].removeprefix("photo-"))
            numbers = [number for number, _ in unusable]
            assert numbers[0] == first
            assert len(set(numbers)) == len(numbers)
            assert set(numbers) <= {3, 7}
            assert unusable[0].what == f"images/{first}.jpg: no readable picture"
            assert photo not in ("photo-3", "photo-7")
            others.add(photo)
        else:
            assert (photo, unusable) == (whole[place][0], ())
            np.testing.assert_array_equal(pixels, whole[place][2])
    assert len(others) > 4  # not one photo for all of them


def test_without_broken_photos_the_batches_are_those_of_a_run_that_stops():
    for ours, theirs in zip(batches(()), batches((), replace=False), strict=True):
        assert "unusable" not in theirs["a"]
        assert_equal({"a": {name: array for name, array in ours["a"].items() if name != "unusable"}}, theirs)


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_threads_processes_and_restarts_do_not_matter(threads):
    broken = (0, 2, 5)
    whole = list(batches(broken))
    for start in (0, 7):
        for ours, theirs in zip(iterate(batches(broken), start, threads), whole[start:], strict=True):
            assert_equal(ours, theirs)
    parts = [iterate(batches(broken, process_index=p, process_count=2), 0, threads) for p in range(2)]
    for batch, *blocks in zip(whole, *parts, strict=True):
        joined = {"a": {key: np.concatenate([b["a"][key] for b in blocks]) for key in batch["a"]}}
        assert_equal(joined, batch)


def test_the_replacement_gets_the_random_numbers_of_the_place():
    """A photo that is replaced by a copy of itself leaves the crop as it was."""
    one = photos(1)[0]
    copies = Broken([one, one], ())
    options = dict(seed=0, total_steps=8, replace=True)
    whole = [step_batches({"a": stream(source=copies, batch_size=2)}, **options)[i]["a"] for i in range(8)]
    copies.broken = {1}
    broken = [step_batches({"a": stream(source=copies, batch_size=2)}, **options)[i]["a"] for i in range(8)]
    assert sum(len(unusable) for batch in broken for unusable in batch["unusable"]) == 8
    for ours, theirs in zip(broken, whole, strict=True):
        np.testing.assert_array_equal(ours["image"], theirs["image"])
        np.testing.assert_array_equal(ours["label"], theirs["label"])


def test_a_photo_that_the_view_refuses_is_replaced_and_leaves_the_random_numbers_as_they_were():
    one = photos(1)[0] | {"tags": np.int32([2])}
    many = one | {"id": "many", "tags": np.arange(9, dtype=np.int32)}
    whole, broken = (
        step_batches({"a": stream("tags", source=source, max_labels=8)}, seed=0, total_steps=6, replace=True)
        for source in ([one, one], [one, many])
    )
    for step in range(6):
        ours, theirs = broken[step]["a"], whole[step]["a"]
        assert set(ours["id"]) == {"photo-0"}
        assert sum(map(len, ours["unusable"])) == 2
        assert {what for row in ours["unusable"] for _, what in row} == {"photo 'many' has 9 tags and max_labels is 8"}
        np.testing.assert_array_equal(ours["image"], theirs["image"])


def test_every_photo_may_take_the_place_of_another():
    found = rows(batches([3], total_steps=200))
    taken = [photo for photo, unusable, _ in found.values() if unusable]
    assert len(taken) == 80
    numbers = np.bincount([int(photo.removeprefix("photo-")) for photo in taken], minlength=10)
    assert numbers[3] == 0
    assert np.delete(numbers, 3).min() >= 2  # 80 places, 9 photos


def test_where_no_photo_can_be_used_the_run_ends_with_one_line():
    with pytest.raises(
        UserError, match=r"images/\d.jpg: no readable picture: replace it \(and no other of the 5 photos"
    ):
        batches(range(5), count=5)[0]
    with pytest.raises(UserError, match=r"no other of the 32 photos tried") as refused:
        batches(range(50), count=50)[0]
    assert "\n" not in str(refused.value)
    assert not isinstance(refused.value, DataError)


def test_of_many_broken_photos_the_good_ones_are_found():
    found = rows(batches(range(9), total_steps=5))
    assert {photo for photo, _, _ in found.values()} == {"photo-9"}


def test_errors_that_are_not_of_a_photo_are_not_hidden():
    class Gone(list):
        def __getitem__(self, index):
            raise UserError("the data set has changed")

    dataset = step_batches({"a": stream(source=Gone(photos()))}, seed=0, total_steps=2, replace=True)
    with pytest.raises(UserError, match="the data set has changed"):
        dataset[0]


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5, float("nan")])
def test_the_share_of_photos_is_a_share(share):
    config = tiny.get_config()
    config.data.most_replaced = share
    with pytest.raises(UserError, match=r"^data.most_replaced is .*: use a share above 0, at most 1$"):
        from_config(config)


def test_a_config_without_the_section_stops_at_the_first_as_before():
    config = tiny.get_config().to_dict()
    assert config.pop("data") == {"on_error": "stop", "most_replaced": 0.01}
    run = from_config(config)
    assert (run.data.on_error, run.data.most_replaced) == ("stop", 0.01)
    for wrong, message in itertools.chain(
        [("replace", "data is 'replace': it must be a section of options")],
        [({"on_error": "skip"}, "data.on_error is 'skip': use 'stop' or 'replace'")],
    ):
        with pytest.raises(UserError, match=message):
            from_config(config | {"data": wrong})
