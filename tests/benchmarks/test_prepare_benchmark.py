"""The made downloads of benchmarks.prepare are what the builder reads, and its arithmetic."""

import pytest

from benchmarks.prepare import SYNSETS, Cost, Tree, beyond_the_start, measure, write_tree
from data_pipelines.builders.imagenet21k import ImageNet21k
from data_pipelines.builders.records import Photo
from tests.data_pipelines.mask_trees import jpeg


@pytest.mark.parametrize("archives", [True, False])
def test_a_made_download_has_two_shards_and_all_its_pictures(archives, tmp_path):
    files = [jpeg(3), jpeg(4)]
    size = write_tree(tmp_path / "in", Tree(21, archives=archives), files)
    builder = ImageNet21k(data_dir=str(tmp_path / "out"))
    pieces = builder.pieces(tmp_path / "in")["train"]
    photos = [photo for piece in pieces for photo in builder.photos(piece) if isinstance(photo, Photo)]
    assert len(pieces) == 2
    assert len(photos) == 21
    assert len({photo.id for photo in photos}) == 21
    assert [sum(1 for photo in photos if photo.tags == (i,)) for i in range(SYNSETS)] == [3] * 5 + [2] * 3
    assert {photo.image for photo in photos} == set(files)
    assert size == sum(len(photo.image) for photo in photos)


@pytest.mark.slow
def test_a_preparation_is_seen_from_outside(tmp_path):
    write_tree(tmp_path / "in", Tree(16), [jpeg(3)])
    one, two = (measure(tmp_path / "in", tmp_path / "out", processes) for processes in (1, 2))
    assert not (tmp_path / "out").exists()
    assert one.together < 2 * one.largest  # a process, and perhaps what Python starts beside it
    assert two.together > 2.5 * one.largest  # one that waits and two that write
    assert one.processor > 0.1


def test_what_is_in_both_is_no_part_of_the_speed():
    cost = {(Tree(n), k): Cost(3 + n / (100 * k), 2 * k + n / 50, 0, 0) for n in (10, 100, 400) for k in (1, 2)}
    cost[Tree(5, large=True), 1] = Cost(1, 1, 0, 0)  # nothing to compare it with
    found = list(beyond_the_start(cost))
    assert [(rate.less.pictures, rate.more.pictures, rate.processes) for rate in found] == [
        (100, 400, 1),
        (100, 400, 2),
    ]
    assert [rate.pictures for rate in found] == pytest.approx([100, 200])
    assert [rate.processor for rate in found] == pytest.approx([1 / 50] * 2)
