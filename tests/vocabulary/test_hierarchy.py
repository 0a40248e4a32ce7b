"""WordNet's nouns: the file in the package, against published counts and well-known synsets, and how it is made."""

import gzip
import re
from importlib import resources
from pathlib import Path

import pytest

from data_pipelines.pack_wordnet import packed, write_packed
from data_pipelines.wordnet import synsets
from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary.class_lists import class_list
from larvseg_jax.vocabulary.hierarchy import FILE, Hierarchy, wordnet

DEBIAN = Path("/usr/share/wordnet")
ENTITY, ANIMAL, DOMESTIC, CANINE, DOG = "n00001740", "n00015388", "n01317541", "n02083346", "n02084071"
DATA = """\
  1 This software and database is being provided to you, the LICENSEE, by
  2
  3 Princeton University under the following license.
00001740 03 n 01 entity 0 001 ~ 00015388 n 0000 | that which is
00015388 05 n 01 animal 0 001 @ 00001740 n 0000 | a living organism
01317541 05 n 02 domestic_animal 0 domesticated_animal 0 001 @ 00015388 n 0000 | any
02083346 05 n 02 canine 0 canid 0 001 @ 00015388 n 0000 | any
02084071 05 n 03 dog 0 domestic_dog 0 Canis_familiaris 0 003 @ 02083346 n 0000 @ 01317541 n 0000 %p 02158846 n 0000 | a
09886220 18 n 02 cad 0 dog 1 001 @i 00001740 n 0000 | someone
"""
INDEX = """\
  1 This software and database is being provided to you
entity n 1 1 ~ 1 1 00001740
animal n 1 1 @ 1 1 00015388
domestic_animal n 1 1 @ 1 0 01317541
domesticated_animal n 1 1 @ 1 0 01317541
canine n 1 1 @ 1 0 02083346
canid n 1 1 @ 1 0 02083346
dog n 2 1 @ 2 1 02084071 09886220
domestic_dog n 1 1 @ 1 0 02084071
canis_familiaris n 1 1 @ 1 0 02084071
cad n 1 1 @ 1 0 09886220
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data.noun").write_text(DATA)
    (tmp_path / "index.noun").write_text(INDEX)
    return tmp_path


def test_there_are_as_many_nouns_as_published():
    """wnstats(7WN) of WordNet 3.0: 82,115 synsets, 117,798 words, 146,312 pairs of these."""
    nouns = wordnet()
    rows = gzip.decompress(FILE.read_bytes()).decode().partition("\n\n")[2].splitlines()
    columns = [re.sub(r"%\d+", "", line).lower().split("\t") for line in rows]
    pairs = {(word, row) for row, column in enumerate(columns) for word in column[2].split(" ")}
    words = {word for word, _ in pairs}
    assert (len(nouns), len(set(nouns.all_words)), len(pairs)) == (82_115, 117_798, 146_312)
    assert set(nouns.all_words) == words


def test_a_dog_as_everybody_knows_it():
    nouns = wordnet()
    assert nouns.find("dog.n.01") == nouns.find("domestic_dog.n.01") == nouns.find(DOG) == DOG
    assert nouns.find("Dog.n.1") == DOG
    assert [nouns.find(text) for text in ("dog", "dog.n.99", "n02084072", "dgo.n.01", "")] == [None] * 5
    assert nouns.words(DOG) == ("dog", "domestic dog", "Canis familiaris")
    assert nouns.hypernyms[DOG] == (CANINE, DOMESTIC)
    names = [nouns.name(synset) for synset in nouns.senses("dog")]
    assert names == ["dog.n.01", "frump.n.01", "dog.n.03", "cad.n.01", "frank.n.02", "pawl.n.01", "andiron.n.01"]
    assert [nouns.name(synset) for synset in nouns.path(DOG)][-4:] == [
        "placental.n.01", "carnivore.n.01", "canine.n.02", "dog.n.01",
    ]  # fmt: skip
    assert nouns.path(DOG)[0] == ENTITY
    assert {CANINE, DOMESTIC, ANIMAL} <= nouns.above(DOG)
    poodle = nouns.find("toy_poodle.n.01")
    assert poodle in nouns.below(DOG) & nouns.below(DOMESTIC)
    assert poodle not in nouns.kinds(DOG)
    assert nouns.find("cat.n.01") not in nouns.below(DOG)


def test_every_synset_of_a_class_list_is_there():
    nouns = wordnet()
    for key in ("ade20k_150", "imagenet_11k", "imagenet_s_919"):
        missing = [synset for of in class_list(key).synsets for synset in of if synset not in nouns]
        assert missing == []


def test_the_licence_is_on_every_copy():
    text = (resources.files("larvseg_jax.vocabulary") / "wordnet" / "LICENSE.txt").read_text()
    head = gzip.decompress(FILE.read_bytes()).decode().partition("\n\n")[0]
    assert [line.strip() for line in head.splitlines()] == text.splitlines()
    assert "WordNet 3.0 Copyright 2006 by Princeton University.  All rights reserved." in text
    assert text.startswith("This software and database is being provided to you, the LICENSEE, by\nPrinceton Univ")
    assert text.rstrip().endswith("Princeton University and LICENSEE agrees to preserve same.")
    assert len(FILE.read_bytes()) < 1_500_000


def test_what_is_packed_is_read_again(folder):
    text = packed(folder)
    nouns = Hierarchy(text)
    above = {ENTITY: (), ANIMAL: (ENTITY,), DOMESTIC: (ANIMAL,), CANINE: (ANIMAL,), DOG: (CANINE, DOMESTIC)}
    assert nouns.hypernyms == above | {"n09886220": (ENTITY,)}  # a cad is an instance, as the file has it
    assert nouns.words("n01317541") == ("domestic animal", "domesticated animal")
    assert nouns.senses("Dog") == (DOG, "n09886220")
    assert nouns.find("dog.n.02") == "n09886220"
    assert nouns.name("n09886220") == "cad.n.01"
    assert nouns.kinds(ANIMAL) == (DOMESTIC, CANINE)
    assert text.startswith("  This software and database is being provided to you, the LICENSEE, by\n  \n  Princeton")
    write_packed(folder, folder / "out.gz")
    assert gzip.decompress((folder / "out.gz").read_bytes()).decode() == text


def test_a_word_that_the_index_lacks_is_a_user_error(folder):
    (folder / "index.noun").write_text(INDEX.replace("canid n", "candid n"))
    with pytest.raises(UserError, match="data.noun:7 is no line of WordNet's"):
        list(synsets(folder))


@pytest.mark.skipif(not (DEBIAN / "data.noun").is_file(), reason="Debian's wordnet-base is not installed here")
def test_the_package_holds_what_debian_has():
    assert gzip.decompress(FILE.read_bytes()).decode() == packed(DEBIAN)
