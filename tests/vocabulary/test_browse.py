"""What a search, a list and a tree show, and the command around them."""

import os
import subprocess
import sys
import tarfile

import numpy as np
import pytest

from larvseg_jax import cli
from larvseg_jax.commands.vocab import vocabulary_of
from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary import Vocabulary
from larvseg_jax.vocabulary.browse import Entry, entries_of_model, listing_in, search, tree
from larvseg_jax.vocabulary.choice import Names
from larvseg_jax.vocabulary.class_lists import class_list
from larvseg_jax.vocabulary.hierarchy import wordnet
from larvseg_jax.weights.safetensors_file import ModelMetadata, SavedModel, save_safetensors
from tests.doc_commands import REPOSITORY

OWN = Vocabulary(
    ("void", "dog", "hot dog", "cat", "toy poodle", "doghouse", "bus", "kitten"),
    base=("dog", "cat", "hot dog"),
    novel=("toy poodle", "bus"),
    background="void",
)
NAMES = Names(OWN)


@pytest.fixture(scope="module")
def entries():
    return entries_of_model(OWN, NAMES)


def test_a_search_shows_the_nearest_first_and_branches(entries):
    assert search("dog", entries, wordnet(), 9) == [
        "dog  dog.n.01  also domestic dog, Canis familiaris  [base]",
        "hot dog  hotdog.n.01  also hotdog  [base]",
        "doghouse  kennel.n.01  also kennel, dog house",
        "branches of WordNet:",
        "  dog.n.01  2 classes: dog, domestic dog, Canis familiaris",
    ]
    assert search("kennel", entries, wordnet(), 9)[0].startswith("doghouse  ")
    assert search("o", entries, wordnet(), 2)[2] == "... and 4 more: --most=6"


def test_a_search_that_finds_nothing_says_what_may_be_meant(entries):
    with pytest.raises(UserError, match="nothing here is called 'dgo': did you mean dog"):
        search("dgo", entries, wordnet(), 9)
    with pytest.raises(UserError, match="nothing here is called 'qqqq': search for another word"):
        search("qqqq", entries, wordnet(), 9)


def test_a_tree_counts_every_class_once():
    """Dogs are domestic animals and canines; both are animals."""
    entries = [Entry(name, NAMES.hierarchy.senses(name)[:1], "") for name in ("dog", "poodle", "corgi", "wolf", "cat")]
    assert tree("carnivore/", entries, wordnet(), 2) == [
        "carnivore.n.01  5",
        "  canine.n.02  4",
        "    dog.n.01  3  = dog",
        "    wolf.n.01  1  = wolf",
        "  feline.n.01  1",
        "    cat.n.01  1  = cat",
    ]
    assert tree("animal.n.01", entries, wordnet(), 1) == [
        "animal.n.01  5",
        "  chordate.n.01  5",
        "  domestic_animal.n.01  3",
    ]  # of the five all but wolf and cat
    assert tree("dog", entries, wordnet(), 0) == ["dog.n.01  3  = dog"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("bird.n.01", "no class is bird.n.01 or below it: the nearest above with one is vertebrate.n.01"),
        ("dgoo", "'dgoo' is no synset of WordNet 3.0 and no noun that it has: did you mean"),
        ("dog.n.77", "'dog.n.77' is no synset of WordNet 3.0 and no noun that it has: "),
    ],
)
def test_a_tree_of_nothing_is_a_user_error(entries, text, problem):
    with pytest.raises(UserError) as caught:
        tree(text, entries, wordnet(), 2)
    assert str(caught.value).startswith(problem)


def test_a_list_in_a_model_says_what_is_missing():
    lines = listing_in("voc_20", NAMES)
    assert lines[0] == "voc_20: PASCAL VOC, 20 classes: 3 classes of the model"
    assert lines[1:4] == ["  bus", "  cat", "  dog"]
    missing = lines[4].removeprefix("not in the model: ").split(", ")
    assert set(missing) == set(class_list("voc_20").ids) - {"bus", "cat", "dog"}


def run(capsys, *arguments):
    cli.run("vocab", list(arguments))
    return capsys.readouterr().out.splitlines()


def test_the_lists_of_the_package(capsys):
    assert "voc_20: PASCAL VOC, 20 classes" in run(capsys, "list")
    lines = run(capsys, "list", "ade20k_150")
    assert (len(lines), lines[2]) == (151, "    1  building  building.n.01")
    assert run(capsys, "list", "imagenet_s_919")[1] == "    0  tench  n01440764  tench.n.01"


def test_the_classes_of_a_file(tmp_path, capsys):
    names = ("dog", "hot dog", "cat", "two\nlines")
    settings = {"vocabulary": {"aliases": [["moggy", "cat"]]}}
    about = ModelMetadata(names, names, (), "", "by hand", -1, settings, {})
    save_safetensors(file := tmp_path / "m.safetensors", SavedModel({"x": np.zeros(1, np.float32)}, {}, about))
    assert vocabulary_of(file, None)[0].aliases == (("moggy", "cat"),)
    assert run(capsys, "list", f"--model={file}") == [
        "dog  dog.n.01  [base]", "hot dog  hotdog.n.01  [base]", "cat  cat.n.01  [base]", "two\\nlines  [base]",
    ]  # fmt: skip
    assert run(capsys, "tree", "carnivore", "--depth=0", f"--model={file}") == ["carnivore.n.01  2"]
    assert run(capsys, "search", "hot", "dog", f"--model={file}")[0].startswith("hot dog  hotdog.n.01")
    assert run(capsys, "list", "voc_20", f"--model={file}")[:3] == [
        "voc_20: PASCAL VOC, 20 classes: 2 classes of the model", "  cat", "  dog",
    ]  # fmt: skip


def test_the_classes_of_a_checkpoint(tmp_path, capsys):
    with tarfile.open(REPOSITORY / "tests/data/version_0_1.tar.xz") as archive:
        archive.extractall(tmp_path / "checkpoints", filter="data")
    names = [line.split("  ")[0] for line in run(capsys, "list", f"--model={tmp_path}")]
    assert names
    assert names == [line.split("  ")[0] for line in run(capsys, "list", f"--model={tmp_path / 'checkpoints' / '4'}")]


def test_a_reader_that_has_enough_is_no_error():
    """As `larvseg vocab list imagenet_21k | head -1`."""
    read, write = os.pipe()
    os.close(read)
    code = "from larvseg_jax import cli; cli.run('vocab', ['list', 'voc_20'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=write,
        stderr=subprocess.PIPE,
        env={"PYTHONPATH": str(REPOSITORY)},
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")
