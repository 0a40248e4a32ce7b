"""The splits that ship, against those they were checked with, and against the class lists."""

import json

import pytest

from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary.class_lists import class_list, keys
from larvseg_jax.vocabulary.splits import split_keys, split_of

SIZES = {
    "voc_15_5": ("voc_20", 15, 5),
    "pascal_context_55_4": ("pascal_context_59", 55, 4),
    "pascal_context_49_10": ("pascal_context_59", 49, 10),
    "coco_stuff_156_15": ("coco_stuff_171", 156, 15),
}


def test_all_of_them_are_known():
    assert set(split_keys()) == SIZES.keys()
    assert "splits" not in keys()  # no class list


@pytest.mark.parametrize("key", SIZES)
def test_seen_and_unseen_are_the_class_list(key):
    split, (listed, seen, unseen) = split_of(key), SIZES[key]
    assert (split.class_list, len(split.seen), len(split.unseen)) == (listed, seen, unseen)
    assert sorted((*split.seen, *split.unseen)) == sorted(class_list(listed).ids)


@pytest.mark.parametrize("key", SIZES)
def test_as_recorded(shared, key):
    path = shared / "splits" / f"{key}.json"
    if not path.is_file():
        pytest.skip("no recorded splits here")
    recorded, split = json.loads(path.read_text()), split_of(key)
    ids = class_list(recorded["dataset"]).ids
    assert split.seen == tuple(ids[i] for i in recorded["seen_indices"])
    assert split.unseen == tuple(ids[i] for i in recorded["unseen_indices"])


def test_an_unknown_split():
    with pytest.raises(UserError, match="use one of voc_15_5"):
        split_of("voc_10_10")
