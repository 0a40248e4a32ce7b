"""Captions of generated scenes: true, of known words, the same each time; and the folder they are written into."""

import collections
import json

import numpy as np
import pytest

from data_pipelines.scenes import captions
from data_pipelines.scenes.captions import WORDS, caption, captions_of
from data_pipelines.scenes.classes import CLASSES, HABITATS
from data_pipelines.scenes.drawing import Dice
from data_pipelines.scenes.pictures import captioned_scene
from data_pipelines.sources import SourceConfig, open_source
from larvseg_jax import cli
from larvseg_jax.errors import UserError
from larvseg_jax.text.tokenizer import TokenizerConfig
from larvseg_jax.text.word_tokenizer import words_in
from larvseg_jax.vocabulary import Vocabulary

OTHER_WORDS = {
    "lawn": "grass", "meadow": "grass", "lake": "water", "sea": "water", "beach": "sand", "street": "road",
    "bricks": "brick", "planks": "wood", "ship": "boat", "building": "house", "blossom": "flower",
    "signpost": "sign", "lamb": "sheep", "coach": "bus", "bull": "cow", "globe": "ball",
}  # fmt: skip
MEANING = {name: name for name in CLASSES} | OTHER_WORDS
GROUNDS = ("sky", "grass", "water", "sand", "road", "brick", "snow", "wood", "ice")


def named(text):
    """The classes that a caption names, in its order."""
    return [MEANING[word] for word in words_in(text) if word in MEANING]


def random_captions(count=400):
    rng = np.random.default_rng(0)
    for i in range(count):
        classes = [CLASSES[c] for c in sorted(rng.choice(26, rng.integers(1, 7), replace=False))]
        yield classes, caption(classes, Dice(5, i))


def test_captions_name_classes_of_the_picture_each_once_and_most_of_them():
    mentioned, shown = 0, 0
    for classes, text in random_captions():
        found = named(text)
        assert found
        assert len(set(found)) == len(found)
        assert set(found) <= set(classes)
        mentioned, shown = mentioned + len(found), shown + len(classes)
    assert 0.8 < mentioned / shown < 0.88  # one in six is left out


def test_objects_have_an_article_and_grounds_stand_behind_a_preposition():
    for classes, text in random_captions():
        words = text.replace(",", "").split()
        objects = [word for word in words if MEANING.get(word, "sky") not in GROUNDS]
        for word in objects:
            assert words[words.index(word) - 1] in ("a", "an"), text
        if set(classes) - set(GROUNDS) and objects:
            for word in words:
                if MEANING.get(word) in GROUNDS:
                    assert words[words.index(word) - 1] in ("on", "of", "in", "the", "under"), text
                    assert max(map(words.index, objects)) < words.index(word), text


def test_orders_frames_and_words_vary():
    texts = [caption(["sheep", "tree", "grass"], Dice(1, i)) for i in range(1500)]
    assert "a photo of a sheep and a tree on grass" in texts
    orders = collections.Counter(tuple(named(text)) for text in texts)
    assert abs(orders["sheep", "tree", "grass"] / orders["tree", "sheep", "grass"] - 1) < 0.4
    assert 0.15 < np.mean(["lamb" in text for text in texts if "sheep" in named(text)]) < 0.35
    assert len({text.partition(" a ")[0] for text in texts}) > 4
    assert len(set(texts)) > 100


def test_the_words_are_those_that_captions_have_and_no_others():
    texts = [text for _, text in random_captions(4000)]
    used = {word for text in texts for word in words_in(text)}
    assert used == set(WORDS)
    assert len(WORDS) == len(used) == 59
    tokens = TokenizerConfig("words", WORDS, 32).make()
    assert all(len(words_in(text)) + 2 <= 32 for text in texts)
    assert {MEANING.get(word) for word in WORDS} == {*CLASSES, None}
    assert tokens("a photo of a fish")[1:6].tolist() == [WORDS.index(w) for w in ("a", "photo", "of", "a", "fish")]


def test_scenes_and_captions_are_the_same_each_time_and_differ_from_others():
    image, mask = captioned_scene(0, 3, "several")
    np.testing.assert_array_equal(image, captioned_scene(0, 3, "several")[0])
    for other in ((1, 3, "several"), (0, 4, "several")):
        assert (image != captioned_scene(*other)[0]).mean() > 0.5
    shown = [CLASSES[c] for c in np.unique(mask)]
    assert captions_of(shown, "train", 3) == captions_of(shown, "train", 3)
    assert captions_of(shown, "train", 3) != captions_of(shown, "val", 3)
    assert image.shape == (64, 64, 3)


def test_on_one_ground_a_novel_class_has_its_own_ground_around_it():
    """The fish trap: no picture with a fish is without water."""
    beside = collections.defaultdict(set)
    for grounds in ("one", "several"):
        for i in range(120):
            shown = {CLASSES[c] for c in np.unique(captioned_scene(0, i, grounds)[1])}
            beside[grounds] |= {("water" in shown) for _ in range("fish" in shown)}
    assert beside["one"] == {True}
    assert beside["several"] == {True, False}
    assert HABITATS["one"]["fish"] == ("water",)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(captions, "VALIDATION", 3)
    place = tmp_path_factory.mktemp("made") / "pairs"
    cli.run("scenes", [f"--captions={place}", "--pairs=5", "--grounds=one"])
    monkeypatch.undo()
    return place


def test_the_folder_is_one_of_captions_and_one_of_masks_and_tags(folder):
    vocabulary = Vocabulary(CLASSES, (), ())
    for split, count in (("train", 5), ("val", 3)):
        opened = {
            reads: open_source(SourceConfig(folder="pairs", split=split), folder.parent, vocabulary.label_set(), reads)
            for reads in ("captions", "masks", "tags")
        }
        assert {len(source) for source in opened.values()} == {count}
        for i in range(count):
            image, mask = captioned_scene(("train", "val").index(split), i, "one")
            shown = [CLASSES[c] for c in np.unique(mask)]
            pair, masked, tagged = (opened[reads][i] for reads in ("captions", "masks", "tags"))
            assert pair["id"] == masked["id"] == tagged["id"]
            np.testing.assert_array_equal(pair["image"], image)
            np.testing.assert_array_equal(masked["label"], mask)
            assert tagged["tags"].tolist() == np.unique(mask).tolist()
            assert list(pair["captions"]) == captions_of(shown, split, i)
            assert {name for text in pair["captions"] for name in named(text)} <= set(shown)


def test_a_folder_with_something_in_it_is_left_alone(folder):
    before = json.loads((folder / "captions.json").read_text())
    with pytest.raises(UserError, match="is not empty: give a new folder"):
        captions.write_captioned(folder, 1)
    assert json.loads((folder / "captions.json").read_text()) == before
