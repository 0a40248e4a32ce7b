"""Photos with captions in a folder: every form of the list, splits, and what is said of what is wrong."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from data_pipelines.caption_lists import caption_faults
from data_pipelines.captioned_photos import CaptionSource, list_captioned
from data_pipelines.sources import SourceConfig, open_source
from larvseg_jax.errors import DataError, UserError
from larvseg_jax.vocabulary import Vocabulary
from tests.data_pipelines.captioned import CAPTIONS, picture, write_folder

WORDS = Vocabulary(("dog",), (), ())
USABLE = {
    "a": ("A dog on a beach", "a dog runs"),
    "b": ("a red ball",),
    "c": ("grass", "grass"),
    "zoo/d": ("sheep, and a tree",),
}


def opened(folder, split="train"):
    source = SourceConfig(folder=folder.name, split=split)
    return open_source(source, folder.parent, WORDS.label_set(), "captions")


def by_id(source):
    return {example["id"]: example for example in (source[i] for i in range(len(source)))}


@pytest.mark.parametrize("file", ["captions.json", "captions.csv"])
def test_both_forms_of_the_list(tmp_path, file):
    found = by_id(opened(write_folder(tmp_path / "pairs", file=file)))
    assert {name: example["captions"] for name, example in found.items()} == USABLE
    np.testing.assert_array_equal(found["b"]["image"], np.random.default_rng(1).integers(0, 256, (13, 16, 3), np.uint8))


@pytest.mark.parametrize(
    "lines",
    [
        "file,caption\nzoo\\d.jpg,x\n./b,y\n",
        "\ufeffid;image;caption\n1;zoo/d.jpg;x\n2;b.png;y\n",
        "image_name| comment_number| comment\nzoo/d.jpg| 0| x\nb.png| 0|y \n",
        'file,caption\rzoo/d,"x"\rb.png,y\r',
        "path\tcaption\r\nzoo/d.jpg\tx\r\n\r\nb.png\t y\r\n",
    ],
)
def test_tables_as_others_write_them(tmp_path, lines):
    folder = write_folder(tmp_path / "pairs", {"zoo/d.jpg": [], "b.png": []})
    (folder / "captions.json").unlink()
    (folder / "captions.csv").write_bytes(lines.encode())
    assert {name: e["captions"] for name, e in by_id(opened(folder)).items()} == {"zoo/d": ("x",), "b": ("y",)}


def test_line_breaks_and_commas_in_quotation_marks(tmp_path):
    folder = write_folder(tmp_path / "pairs", {"b.png": []})
    (folder / "captions.json").unlink()
    (folder / "captions.csv").write_text('file,caption\nb.png,"one, two\nand ""three"""\n')
    assert opened(folder)[0]["captions"] == ('one, two\nand "three"',)


ADDRESSES = [f"http://x.org/{i}.jpg?a=b" for i in range(5)]


@pytest.mark.parametrize("naming", ["0", "000000000", "md5", "sha1", "sha256"])
def test_addresses_and_captions_as_conceptual_captions_has_them(tmp_path, naming):
    """Pictures 1 and 3 were downloaded; captions have quotation marks and odd characters."""
    stems = {
        i: f"{i:0{len(naming)}}" if naming.isdecimal() else hashlib.new(naming, ADDRESSES[i].encode()).hexdigest()
        for i in (1, 3)
    }
    folder = write_folder(tmp_path / "pairs", {f"{stem}.jpg": [] for stem in stems.values()})
    (folder / "captions.json").unlink()
    texts = ["zero", 'a "red" ball', "two", "three\u2028lines\x0b", "four"]
    (folder / "captions.tsv").write_text("".join(f"{a}\t{t}\n" for a, t in zip(ADDRESSES, texts, strict=True)))
    found = by_id(opened(folder))
    assert {n: e["captions"] for n, e in found.items()} == {stems[1]: (texts[1],), stems[3]: (texts[3].strip(),)}
    (fault,) = list_captioned(folder, "train").faults
    assert fault.kind == "not downloaded"
    first = ", ".join(ADDRESSES[i] for i in (0, 2, 4))
    assert fault.what == f"{folder / 'images'} holds 2 of the 5 pictures of captions.tsv, and not {first}"


def test_splits_name_photos_with_or_without_ending_and_decide_the_order(tmp_path):
    splits = {"train": ["c.jpg", "a"], "more": {"val": ["zoo/d"]}}
    folder = write_folder(tmp_path / "pairs", splits=splits)
    assert [photo["id"] for photo in opened(folder)] == ["c", "a"]
    assert [photo["id"] for photo in opened(folder, "more.val")] == ["zoo/d"]
    with pytest.raises(DataError, match=r"splits\.json: no split 'test': it has train, more\.val"):
        opened(folder, "test")


def change(folder, **files):
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.mark.parametrize(
    ("files", "what"),
    [
        (dict(captions_json={"a.jpg": "a dog"}), r"captions\.json: 'a\.jpg' has 'a dog': write \{file name .*: \[capt"),
        (dict(captions_json={"a.jpg": [1]}), r"'a\.jpg' has \[1\]: write"),
        (dict(captions_json="[]"), r"captions\.json: holds a list: it must be a JSON object"),
        (dict(captions_json=CAPTIONS | {"e.jpg": ["x"]}), r"there is no .*images/e\.jpg \(1 of 5 files missing\)"),
        (dict(captions_json={"d.jpg": ["x"]}), r"files are given as seen from .*images: write 'zoo/d\.jpg'"),
        (dict(captions_json={"a.png": ["x"]}), r"there is no .*a\.png .*write 'a\.jpg'"),
        (dict(captions_json={"a.jpg": [" "]}), r"captions\.json: none of the 1 photos of split 'train' is there with"),
        (dict(captions_json={}), "none of the 0 photos"),
        (
            dict(splits_json={"train": ["a", "e"]}),
            r"splits\.json: there is no .*images/e \(1 of 2 files missing\): add",
        ),
        (dict(splits_json={"train": ["d"]}), r"there is no .*images/d .*: write 'zoo/d\.jpg'"),
        (dict(splits_json={"train": ["a", "a"]}), r"splits\.json: split 'train' lists 'a' twice: remove one"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, files, what):
    folder = write_folder(tmp_path / "pairs")
    change(folder, **files)
    with pytest.raises(UserError, match=what) as caught:
        opened(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("photo,words\na.jpg,x\n", r"captions\.csv: begins with 'photo,words': its first line must name the columns"),
        ("", r"captions\.csv: begins with '': its first line must name"),
        ("file,caption\na.jpg,one, two\n", r"the line 'a\.jpg,one, two' has 3 cells for 2 columns: write captions"),
        ("file,caption\na.jpg\n", r"has 1 cells for 2 columns"),
        ("file,caption\na.jpg,\xe9\n".encode("latin-1"), r"captions\.csv: not UTF-8 .* save it as UTF-8"),
    ],
)
def test_wrong_tables_are_named(tmp_path, content, what):
    folder = write_folder(tmp_path / "pairs")
    (folder / "captions.json").unlink()
    (folder / "captions.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=what):
        opened(folder)


def test_missing_folders_and_files(tmp_path):
    with pytest.raises(DataError, match="none does not exist"):
        opened(tmp_path / "none")
    folder = tmp_path / "pairs"
    folder.mkdir()
    with pytest.raises(DataError, match=r"has no captions\.json, captions\.csv, captions\.tsv: write one"):
        opened(folder)
    (folder / "captions.tsv").write_text("http://a no tab\n")
    with pytest.raises(DataError, match=r"images does not exist: put the photos of captions\.tsv into it"):
        opened(folder)
    (folder / "images").mkdir()
    with pytest.raises(UserError, match=r"captions\.tsv: line 1, 'http://a no tab', has no tab"):
        opened(folder)
    (folder / "captions.json").write_text("{}")  # the first of the lists counts
    with pytest.raises(UserError, match=r"split 'val': it has no splits\.json, so leave `split` at 'train'"):
        opened(folder, "val")


def test_photos_that_are_left_out_are_named(tmp_path):
    folder = write_folder(tmp_path / "pairs")
    change(folder, captions_json={"a.jpg": ["x"], "b.png": ["", " "]})
    listing = list_captioned(folder, "train")
    assert [(fault.kind, fault.what.split("/")[-1]) for fault in listing.faults] == [
        ("unlisted", "c.jpg is not in captions.json"),
        ("unlisted", "d.jpg is not in captions.json"),
        ("no caption", "captions.json: 'b.png' has no caption"),
    ]
    assert [photo["id"] for photo in CaptionSource(listing)] == ["a"]


def test_faults_of_a_photo_s_captions():
    kinds = [fault.kind for fault in caption_faults(CAPTIONS["c.jpg"], "c")]
    assert kinds == ["empty caption", "same caption"]
    assert [f.kind for f in caption_faults(["", " "], "c")] == ["no caption"]
    assert caption_faults(["one", "two"], "c") == []


def test_a_broken_picture_is_named_when_it_is_read(tmp_path):
    folder = write_folder(tmp_path / "pairs")
    (folder / "images" / "b.png").write_bytes(picture()[:60])
    with pytest.raises(DataError, match=r"images/b\.png: no readable picture"):
        opened(folder)[1]
    (folder / "images" / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"a\.jpg \(1 of 4 files missing\)"):
        opened(folder)


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("class_folders", r"class folders have no captions: use them in a tag_stream"),
        ("tagged", "a list of tags has no captions: use them in a tag_stream"),
    ],
)
def test_sources_without_captions_say_so(tmp_path, kind, what):
    with pytest.raises(UserError, match=what):
        open_source(SourceConfig(**{kind: "x"}), tmp_path, WORDS.label_set(), "captions")


def test_a_grey_picture_and_one_with_an_alpha_channel_have_three_channels(tmp_path):
    folder = write_folder(tmp_path / "pairs", {"a.png": ["x"], "b.png": ["y"]})
    Image.fromarray(np.full((4, 5), 7, np.uint8)).save(folder / "images" / "a.png")
    Image.fromarray(np.full((4, 5, 4), 9, np.uint8)).save(folder / "images" / "b.png")
    assert [photo["image"].shape for photo in opened(folder)] == [(4, 5, 3)] * 2


def test_flickr8k_opens(shared):
    source = SourceConfig(folder="flickr8k", split="val")
    found = open_source(source, shared / "realdata", WORDS.label_set(), "captions")
    assert len(found) == 1000
    assert {len(found[i]["captions"]) for i in range(5)} == {5}
    assert found[0]["image"].shape == (128, 128, 3)
