"""From texts to classes: names, synonyms, branches of WordNet, class lists, files; and what is said of all others."""

import pytest

from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary import Vocabulary
from larvseg_jax.vocabulary import choice as module
from larvseg_jax.vocabulary.choice import Names, choose
from larvseg_jax.vocabulary.class_lists import class_list
from larvseg_jax.vocabulary.hierarchy import wordnet
from larvseg_jax.vocabulary.shared_rows import unite
from larvseg_jax.vocabulary.synsets import synsets_of

CLASSES = ("background", "dog", "cat", "sofa", "car", "toy poodle", "bus", "traffic-light", "fish, salmon", "crane")
OWN = Vocabulary(CLASSES, background="background", aliases=(("puppy", "dog"), ("moggy", "cat")))


def names(texts, vocabulary=OWN, exclude=(), lists=()):
    return [chosen.name for chosen in choose(texts, vocabulary, exclude, lists)]


@pytest.mark.parametrize(
    ("text", "expected", "why"),
    [
        ("dog", ["dog"], "name"),
        ("puppy", ["dog"], "alias puppy"),
        ("Dog", ["dog"], "name Dog"),
        ("Traffic_light", ["traffic-light"], "name Traffic_light"),
        ("fish, salmon", ["fish, salmon"], "name"),
        ("couch", ["sofa"], "synonym couch (sofa.n.01)"),
        ("automobile", ["car"], "synonym automobile (car.n.01)"),
        ("dog.n.01", ["dog", "toy poodle"], "below dog.n.01"),
        ("n02084071", ["dog", "toy poodle"], "below dog.n.01"),
        ("domestic_dog.n.1", ["dog", "toy poodle"], "below dog.n.01"),
        ("dog/", ["dog", "toy poodle"], "below dog.n.01"),
        ("poodle/", ["toy poodle"], "below poodle.n.01"),
        ("animal/", ["dog", "cat", "toy poodle", "fish, salmon"], "below animal.n.01"),
        ("lifting device.n.01", ["crane"], "below lifting_device.n.01"),
        ("voc_20", ["bus", "car", "cat", "dog", "sofa"], "list voc_20"),
    ],
)
def test_one_text(text, expected, why):
    assert [tuple(chosen) for chosen in choose([text], OWN)] == [(name, why) for name in expected]


def test_a_name_is_found_without_wordnet(monkeypatch):
    monkeypatch.setattr(module, "wordnet", None)
    assert names(["cat,puppy", "traffic light"], exclude=["dog"]) == ["cat", "traffic-light"]
    assert names(None) == list(CLASSES)


def test_classes_come_in_order_of_mention_and_each_once():
    assert names(["cat, dog.n.01", "dog", "fish, salmon"]) == ["cat", "dog", "toy poodle", "fish, salmon"]
    assert choose(["dog.n.01,dog"], OWN)[0].why == "below dog.n.01"


def test_exclusion_takes_the_same_texts():
    assert names(["animal/"], exclude=["dog.n.01", "fish, salmon"]) == ["cat"]
    assert names(None, exclude=["animal/,voc_20"]) == ["background", "traffic-light", "crane"]
    with pytest.raises(UserError, match="no class is left: exclude fewer"):
        choose(["dog"], OWN, ["animal/"])
    with pytest.raises(UserError, match="no class is named"):
        choose([], OWN)


def test_files_have_a_text_per_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "my, names.txt"
    file.write_bytes("\ufefffish, salmon\n\n couch\r\ndog.n.01\n".encode())
    expected = [
        ("fish, salmon", "name, my, names.txt"),
        ("sofa", "synonym couch (sofa.n.01), my, names.txt"),
        ("dog", "below dog.n.01, my, names.txt"),
        ("toy poodle", "below dog.n.01, my, names.txt"),
    ]
    for text in (f"@{file}", str(file), "@my, names.txt", "my, names.txt"):
        assert [tuple(chosen) for chosen in choose([text], OWN)] == expected
    (tmp_path / "a.txt").write_text("cat\n")
    assert names(["@a.txt,bus"]) == ["cat", "bus"]
    assert names(["cat"], exclude=[]) == ["cat"]
    (tmp_path / "dog").write_text("bus\n")  # a file of a class's name is asked for by @
    assert (names(["dog"]), names(["@dog"])) == (["dog"], ["bus"])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "@a.txt: the file cannot be read (No such file or directory): give a text file, a name per line"),
        (b"\xff\xfe\x00", "@a.txt: the file cannot be read (no text in UTF-8)"),
        (b"\n \n", "a.txt names no class: give a text file, a name per line"),
        (b"cat\ndgo\n", "a.txt:2: class 'dgo' is not in the vocabulary: did you mean dog?"),
        (b"cat,dog\n", "a.txt:1: class 'cat,dog' is not in the vocabulary"),
        (b"@a.txt\n", "a.txt:1: class '@a.txt' is not in the vocabulary"),
    ],
)
def test_a_file_that_names_nothing_is_a_user_error(tmp_path, monkeypatch, content, problem):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UserError) as caught:
        choose(["@a.txt"], OWN)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("dgo", "did you mean dog?"),
        ("cuoch", "did you mean couch"),  # a synonym
        ("animal", "did you mean animal/, animal.n.01"),  # only as a branch
        ("vehicel", "did you mean vehicle/"),
        ("dgo.n.01", "did you mean dog.n.01"),
        ("voc_2", "did you mean voc_20"),
        ("beagle", "beagle.n.01 is a kind of its class 'dog'"),
        ("beagle.n.01", "beagle.n.01 is a kind of its class 'dog'"),
        ("poodle", "did you mean poodle/"),
        ("minicab/", "minicab.n.01 is a kind of its class 'car'"),
        ("cityscape_19", "did you mean cityscapes_19"),
        ("qqqqqq", "it has 10 classes"),
        ("", "it has 10 classes"),
    ],
)
def test_what_may_be_meant_is_said(text, hint):
    with pytest.raises(UserError) as caught:
        choose([text], OWN)
    assert str(caught.value).startswith(f"class {text!r} is not in the vocabulary: {hint}")


def test_a_list_of_which_nothing_is_there():
    with pytest.raises(UserError, match="class 'cityscapes_19' is not in the vocabulary: it has no class of this list"):
        choose(["cityscapes_19"], Vocabulary(("dog", "cat")))


def test_a_name_that_was_torn_at_its_comma_is_named():
    with pytest.raises(UserError, match="'fish, salmon' has a comma: .* --classes=\"fish, salmon\" --classes="):
        choose(["fish, salmon,dog"], OWN)
    assert names(["cat,dog"], Vocabulary(("cat,dog", "dog"))) == ["cat,dog"]


UNITED = unite([class_list("coco_stuff_171"), class_list("imagenet_s_919")], "synset")
UNION = Vocabulary(UNITED.classes)
LISTS = ("coco_stuff_171", "imagenet_s_919")


def test_classes_of_lists_have_their_synsets():
    chosen = names(["dog.n.01"], UNION, lists=LISTS)
    below = wordnet().below("n02084071")
    dogs = {title for title, (of,) in zip(*_columns("imagenet_s_919"), strict=True) if of in below}
    assert len(dogs) > 80
    assert set(chosen) == dogs | {"dog"}  # the class of COCO-Stuff, by its name
    crane = ["crane (n02012849)"]  # a name says its synset where two classes of a list bear it
    assert names(["crane.n.05"], UNION) == names(["crane.n.05"], UNION, lists=LISTS) == crane


def _columns(key):
    return class_list(key).titles, class_list(key).synsets


def test_a_list_is_found_in_a_union_of_lists():
    for key in LISTS:
        assert set(names([key], UNION, lists=LISTS)) == set(UNITED.names[key])
    found, missing = Names(UNION, LISTS).in_list("voc_20")
    assert {"airplane", "boat", "person"} < set(found)  # an aeroplane there
    assert "tvmonitor" in missing


def test_what_distinguishes_names_of_a_union_may_be_left_out():
    vocabulary = Vocabulary(("mouse (n02330245)", "mouse (n03793489)", "wall (ade20k_150)", "n02084071"))
    with pytest.raises(UserError, match=r"'mouse' names 2 classes \(mouse \(n02330245\), mouse \(n03793489\)\): give"):
        choose(["mouse"], vocabulary)
    assert names(["wall"], vocabulary) == ["wall (ade20k_150)"]
    assert names(["rodent/"], vocabulary) == ["mouse (n02330245)"]
    assert names(["device/"], vocabulary) == ["mouse (n03793489)"]
    assert names(["n02084071"], vocabulary) == names(["canine/"], vocabulary) == ["n02084071"]


def test_the_sense_that_fits_a_picture():
    nouns = wordnet()
    found = synsets_of(
        ("crane", "light", "turkey", "Paris", "building, edifice", "skis", "cell phone", "tvmonitor"), (), nouns
    )
    assert {name: [nouns.name(s) for s in of] for name, of in found.items()} == {
        "crane": ["crane.n.04"],  # no Stephen Crane
        "light": ["light.n.02"],  # no radiation
        "turkey": ["turkey.n.01"],
        "Paris": ["paris.n.01"],
        "building, edifice": ["building.n.01"],
        "skis": ["ski.n.01"],
        "cell phone": ["cellular_telephone.n.01"],
        "tvmonitor": [],
    }
