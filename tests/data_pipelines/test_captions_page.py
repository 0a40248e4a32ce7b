"""docs/captions.md: its folders and lists are those that open, its options those there are."""

import hashlib
import re
from pathlib import Path

import pytest

from data_pipelines.caption_views import CaptionView
from data_pipelines.captioned_photos import list_captioned
from data_pipelines.scenes.captions import WORDS
from larvseg_jax.options import names
from tests.data_pipelines.captioned import picture

PAGE = (Path(__file__).parents[2] / "docs" / "captions.md").read_text()
BLOCKS = dict(re.findall(r"^```\w+ (\w+\.\w+)\n((?:.*\n)*?)```$", PAGE, re.M))


def folder_of(tmp_path, *files, pictures=("a.jpg", "zoo/b.png")):
    for name in pictures:
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(0, path.suffix))
    for file in files:
        (tmp_path / file).write_text(BLOCKS[file])
    return tmp_path


def read(folder, split="train"):
    listing = list_captioned(folder, split)
    assert listing.faults == ()
    return dict(zip(listing.photos, listing.captions, strict=True))


def test_the_lists_of_the_page_open(tmp_path):
    found = read(folder_of(tmp_path / "json", "captions.json"))
    assert found == {"a.jpg": ("A dog runs on the beach", "a brown dog"), "zoo/b.png": ("two sheep on grass",)}
    assert read(folder_of(tmp_path / "csv", "captions.csv")) == found | {"a.jpg": ("A dog, running", "a brown dog")}
    split = folder_of(tmp_path / "split", "captions.json", "splits.json")
    assert [list(read(split, name)) for name in ("train", "val")] == [["a.jpg"], ["zoo/b.png"]]


@pytest.mark.parametrize("digest", [None, "md5", "sha1", "sha256"])
def test_the_list_of_addresses_opens(tmp_path, digest):
    addresses = [line.partition("\t")[0] for line in BLOCKS["captions.tsv"].splitlines()]
    stems = [f"{i:05}" for i in range(2)] if digest is None else [
        hashlib.new(digest, address.encode()).hexdigest() for address in addresses
    ]  # fmt: skip
    pictures = [f"{stem}.jpg" for stem in stems]
    found = read(folder_of(tmp_path, "captions.tsv", pictures=pictures))
    assert found == {pictures[0]: ("a dog on the beach",), pictures[1]: ("two sheep on grass",)}


def test_every_option_of_the_view_stands_in_the_table():
    table = re.search(r"^\| option .*\n\|---.*\n((?:\|.*\n)+)", PAGE, re.M).group(1)
    listed = {name for line in table.splitlines() for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    assert listed == set(names(CaptionView))
    assert f"are the {len(WORDS)} words" in " ".join(PAGE.split())
