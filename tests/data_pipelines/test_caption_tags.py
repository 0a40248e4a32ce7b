"""Tags from captions, with a WordNet of a few words in the form of its files."""

import json

import numpy as np
import pytest
from PIL import Image

from data_pipelines.caption_tags import most_frequent, things_of, write_tags
from data_pipelines.folder import FolderSource
from data_pipelines.listed_tags import with_listed_tags
from data_pipelines.wordnet import WordNet
from larvseg_jax import cli
from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary import Vocabulary

LICENCE = "  1 This software and database is being provided to you\n"
# lemma: lexicographer file of its senses, the most frequent one first; tagged as noun, as verb
WORDS = {
    "dog": ((5, 18), 40, 1), "man": ((18,), 90, 0), "child": ((18,), 60, 0), "grass": ((20,), 20, 0),
    "horse": ((5,), 30, 0), "beach": ((17,), 9, 0), "bush": ((20,), 5, 0), "jump": ((4,), 3, 20),
    "stand": ((6,), 4, 90), "fun": ((12,), 6, 0), "camera": ((6,), 8, 0), "doe": ((5,), 0, 0),
    "snowboard": ((6,), 0, 0),
}  # fmt: skip
CAPTIONS = {
    "a.jpg": ["A man and two dogs on the beach .", "Dogs jump for fun"],
    "b.jpg": ["Children stand in the GRASS.", "a child does look at the camera"],
    "c.jpg": ["A snowboard and a dog near bushes"],
    "d.jpg": ["Nothing to see here"],
    "e.jpg": ["horses"],
    "f.jpg": ["a horse"],
}
SPLITS = {"train": ["a.jpg", "b", "c.jpg", "d.jpg"], "val": ["e.jpg", "f.jpg"], "note": "drawn by hand"}


@pytest.fixture
def wordnet(tmp_path):
    folder = tmp_path / "wordnet"
    folder.mkdir()
    index, data, counts, offset = [], [], [], 1000
    for lemma, (senses, nouns, verbs) in WORDS.items():
        offsets = []
        for lexfile in senses:
            data.append(f"{offset:08d} {lexfile:02d} n 01 {lemma} 0 000 | what a {lemma} is\n")
            offsets.append(f"{offset:08d}")
            offset += 100
        index.append(f"{lemma} n {len(senses)} 1 @ {len(senses)} 1 {' '.join(offsets)}\n")
        counts += [f"{lemma}%1:{senses[0]:02d}:00:: 1 {nouns}\n"] if nouns else []
        counts += [f"{lemma}%2:38:00:: 1 {verbs}\n"] if verbs else []
    (folder / "index.noun").write_text(LICENCE + "".join(index))
    (folder / "data.noun").write_text(LICENCE + "".join(data))
    (folder / "cntlist.rev").write_text("".join([*counts, "do%2:36:00:: 1 700\n"]))
    (folder / "noun.exc").write_text("children child\nmen man\n")
    (folder / "verb.exc").write_text("does do\n")
    return folder


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "images").mkdir(parents=True)
    for i, name in enumerate(CAPTIONS):
        Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(folder / "images" / name)
    (folder / "captions.json").write_text(json.dumps(CAPTIONS))
    (folder / "splits.json").write_text(json.dumps(SPLITS))
    return folder


@pytest.mark.parametrize(
    ("word", "thing"),
    [
        ("dogs", ("dog", "animal")),
        ("children", ("child", "person")),
        ("people", ("people", "person")),
        ("grass", ("grass", "plant")),  # no plural of "gras"
        ("bushes", ("bush", "plant")),
        ("snowboard", ("snowboard", "artifact")),  # in no tagged text
        ("fun", None),  # an attribute
        ("stands", None),  # a verb more often
        ("does", None),  # no plural of "doe"
        ("unheard", None),
    ],
)
def test_things_and_grounds(word, thing, wordnet):
    assert WordNet(wordnet).thing(word) == thing


def test_what_captions_name(wordnet):
    assert things_of(CAPTIONS["b.jpg"], WordNet(wordnet)) == {"person", "grass"}  # and no camera
    assert things_of(CAPTIONS["a.jpg"], WordNet(wordnet)) == {"person", "dog", "beach"}


def test_the_most_frequent_ones_first_and_then_by_alphabet():
    assert most_frequent([{"b", "c"}, {"c", "a"}, {"d"}], 3) == ["c", "a", "b"]


def test_a_stream_of_tags_reads_what_is_written(photos, wordnet, tmp_path, capsys):
    out = tmp_path / "tagged"
    cli.run("caption_tags", [f"--from={photos}", f"--wordnet={wordnet}", f"--out={out}", "--classes=4"])
    assert capsys.readouterr().out == f"{out}: 4 classes, 3 train, 0 val\n"  # horses are in no training photo
    # By hand: dog in a and c, person in a and b; of those in one photo the first two by alphabet.
    names = ("dog", "person", "beach", "bush")
    assert tuple((out / "classes.txt").read_text().split()) == names
    source = FolderSource(out, "train", Vocabulary(names).label_set(), masks=False, tags=True)
    found = {source[i]["id"]: sorted(names[t] for t in source[i]["tags"] if t >= 0) for i in range(len(source))}
    assert found == {"a": ["beach", "dog", "person"], "b": ["person"], "c": ["bush", "dog"]}


def test_names_that_are_there_in_any_case(photos, wordnet, tmp_path, capsys):
    """Horses are in no training photo, "near bushes" is a plural; by hand: dog in a and c, person in a and b."""
    out, names = tmp_path / "nouns", ["horse", "near bush", "dog", "person"]
    flags = [f"--from={photos}", f"--wordnet={wordnet}", f"--out={out}", "--include=horse,near bush"]
    cli.run("caption_tags", [*flags, "--classes=4"])
    assert capsys.readouterr().out == f"{out}: 4 classes, 3 train, 2 val\n"
    assert (out / "classes.txt").read_text().splitlines() == names
    tags = {"a": ["dog", "person"], "b": ["person"], "c": ["near bush", "dog"], "d": [], "e": ["horse"], "f": ["horse"]}
    assert json.loads((out / "tags.json").read_text()) == tags
    label_set = Vocabulary(tuple(names)).label_set()
    found = FolderSource(out, "val", label_set, masks=False, tags=True)
    assert [found[i]["tags"].tolist() for i in range(2)] == [[0], [0]]
    listed = with_listed_tags(found, out / "tags.json", label_set)
    assert [listed[i]["tags"].tolist() for i in range(2)] == [[0], [0]]
    with pytest.raises(UserError, match="--classes=1 is less than the 2 classes of --include"):
        write_tags(photos, wordnet, tmp_path / "more", 1, ("horse", "dog"))


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("captions.json", '{"a.jpg": "one text"}', "captions.json: 'a.jpg' has 'one text': write"),
        ("splits.json", '{"val": ["a.jpg"]}', "splits.json: write"),
        ("splits.json", '{"train": ["z.jpg"]}', "z in train has no captions"),
    ],
)
def test_another_form_is_a_user_error(photos, wordnet, tmp_path, file, text, said):
    (photos / file).write_text(text)
    with pytest.raises(UserError, match=said):
        write_tags(photos, wordnet, tmp_path / "tagged", 4)
    assert not (tmp_path / "tagged").exists()


def test_missing_files_and_a_folder_that_exists_are_user_errors(photos, wordnet, tmp_path):
    with pytest.raises(UserError, match="exists: give --out"):
        write_tags(photos, wordnet, photos, 4)
    (wordnet / "verb.exc").write_text("does\n")
    with pytest.raises(UserError, match=r"verb.exc:1 is no line of WordNet"):
        write_tags(photos, wordnet, tmp_path / "tagged", 4)
    (wordnet / "noun.exc").unlink()
    with pytest.raises(UserError, match=r"noun.exc cannot be read .* --wordnet"):
        write_tags(photos, wordnet, tmp_path / "tagged", 4)
