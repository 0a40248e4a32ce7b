"""Pairs in .tar files: read where they lie, and what is said of incomplete downloads."""

import json
import threading

import numpy as np
import pytest

from data_pipelines.caption_shards import list_shards, look_through
from data_pipelines.sources import SourceConfig, open_source
from larvseg_jax.errors import DataError, UserError
from larvseg_jax.vocabulary import Vocabulary
from tests.data_pipelines.captioned import picture, write_tar

WORDS = Vocabulary(("dog",), (), ())


def write_shards(folder):
    """Five pairs in two shards, in every form there is; and one picture without caption."""
    first = {
        "000000.jpg": picture(0, ".jpg"), "000000.txt": b" a dog\n on grass\n", "000000.json": b'{"caption": "other"}',
        "000002.json": b'{"caption": "a ball", "url": "x"}', "000002.PNG": picture(1),
    }  # fmt: skip
    second = {
        "000010.png": picture(2), "000010.txt": "ein Schäfer".encode(),
        "000011.png": picture(3), "000011.json": b'{"caption": ["one", "", "two"]}',
        "./000012.seg.png": picture(0), "000013.png": picture(4), "000013.txt": b"",
        "._000014.png": b"by others", "000015.webp": picture(5), "000015.txt": b"last",
        "a/" + "long" * 40 + ".png": picture(6), "a/" + "long" * 40 + ".txt": b"long name",
    }  # fmt: skip
    write_tar(folder / "00000.tar", first)
    write_tar(folder / "00001.tar", second)
    return folder


def opened(folder, split="train"):
    return open_source(SourceConfig(shards=folder.name, split=split), folder.parent, WORDS.label_set(), "captions")


def test_pairs_are_read_where_they_lie(tmp_path):
    found = opened(write_shards(tmp_path / "web"))
    assert [(photo["id"], photo["captions"]) for photo in found] == [
        ("000000", ("a dog on grass",)),
        ("000002", ("a ball",)),
        ("000010", ("ein Schäfer",)),
        ("000011", ("one", "two")),
        ("000015", ("last",)),
        ("a/" + "long" * 40, ("long name",)),
    ]
    for i, seed in ((1, 1), (2, 2), (3, 3), (4, 5), (5, 6)):
        expected = np.random.default_rng(seed).integers(0, 256, (12 + seed, 16, 3), np.uint8)
        np.testing.assert_array_equal(found[i]["image"], expected)
    assert len(found) == 6
    with pytest.raises(IndexError):
        found[6]


def test_any_order_and_threads_give_the_same(tmp_path):
    found = opened(write_shards(tmp_path / "web"))
    expected = [found[i]["captions"] for i in range(6)]
    results = {}
    threads = [threading.Thread(target=lambda i=i: results.update({i: found[i % 6]["captions"]})) for i in range(60)]
    for thread in reversed(threads):
        thread.start()
    for thread in threads:
        thread.join()
    assert [results[i] for i in range(60)] == expected * 10


def test_splits_are_folders(tmp_path):
    write_shards(tmp_path / "web" / "val")
    assert len(opened(tmp_path / "web", "val")) == 6
    with pytest.raises(DataError, match=r"web/train holds no \.tar: put the shards into it"):
        opened(tmp_path / "web")
    with pytest.raises(UserError, match="its shards are no split: leave `split` at 'train'"):
        opened(tmp_path / "web/val", "val")
    with pytest.raises(DataError, match="nowhere does not exist"):
        opened(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"web: shards have no masks: use them in a caption_stream"):
        open_source(SourceConfig(shards="web"), tmp_path, WORDS.label_set(), "masks")


def test_pictures_without_caption_and_pictures_not_downloaded_are_counted(tmp_path):
    folder = write_shards(tmp_path / "web")
    (folder / "00001.tar").unlink()
    write_tar(folder / "00001.tar", {f"{k:07}.png": picture(1) for k in (10, 11, 13)} | {"0000110.txt": b"x"})
    (folder / "00000_stats.json").write_text(json.dumps({"count": 4, "successes": 2}))
    faults = list_shards(folder, "train").faults
    assert [fault.kind for fault in faults] == ["no caption"] * 3 + ["not downloaded"]
    assert faults[0].what == f"{folder}/00001.tar: '0000010' has no caption"
    assert faults[0].among == "(3 of 3 pictures)"
    assert faults[3].what == f"{folder}: 2 of 4 pictures are there with a caption, 2 are not: 000001, 000003"
    (folder / "00000_stats.json").write_text('{"count": "many"}')
    with pytest.raises(UserError, match="its count is 'many'"):
        list_shards(folder, "train")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b'{"caption": 3}', r"00002\.tar/x\.png: the caption in its \.json is '3': write a text"),
        (b"[1]", r"00002\.tar/x\.png: no caption"),
        (b'{"caption": null}', r"00002\.tar/x\.png: no caption"),
        (b"{", r"x\.png: its caption cannot be read"),
    ],
)
def test_wrong_captions_are_named(tmp_path, content, what):
    folder = tmp_path / "web"
    write_tar(folder / "00002.tar", {"x.png": picture(), "x.json": content})
    with pytest.raises(DataError, match=what):
        opened(folder)[0]


def test_a_text_comes_before_json_in_either_order(tmp_path):
    members = {"x.json": b'{"caption": "json"}', "x.png": picture(), "x.txt": b"text"}
    write_tar(tmp_path / "web" / "0.tar", members)
    write_tar(tmp_path / "web" / "1.tar", dict(reversed(members.items())))
    assert [photo["captions"] for photo in opened(tmp_path / "web")] == [("text",)] * 2


def test_of_a_shard_cut_short_only_whole_pairs_are_listed(tmp_path):
    path = write_tar(tmp_path / "0.tar", {"a.png": picture(), "a.txt": b"x", "b.txt": b"y", "b.png": picture()})
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"IHDR") + 20])
    shard = look_through(path)
    assert shard.keys.tolist() == [b"a"]
    assert [fault.kind for fault in shard.faults] == ["unreadable"]


@pytest.mark.parametrize("cut", [2_000, 400, 0, -700])
def test_a_shard_cut_short_is_named(tmp_path, cut):
    folder = write_shards(tmp_path / "web")
    path = folder / "00001.tar"
    whole = path.read_bytes()
    end = whole.rindex(b"long name") + 512
    path.write_bytes(whole[: end + cut] if cut < 0 else whole[:cut])
    with pytest.raises(DataError, match=r"00001\.tar: .*pictures may be missing: download it again"):
        opened(folder)


def test_shards_without_pairs(tmp_path):
    write_tar(tmp_path / "web" / "0.tar", {"readme.md": b"x"})
    with pytest.raises(DataError, match=r"none of its 1 \.tar files has a picture with a caption"):
        opened(tmp_path / "web")
