"""Names that data has for a class besides its own."""

import json

import numpy as np
import pytest
from PIL import Image

from data_pipelines.folder import FolderSource
from larvseg_jax import assemble
from larvseg_jax.config import from_config
from larvseg_jax.errors import UserError
from larvseg_jax.options import changes
from larvseg_jax.vocabulary import IGNORE_LABEL, Vocabulary
from tests import tiny

CLASSES = ("background", "dog", "sofa", "cat")
ALIASES = (("couch", "sofa"), ("puppy", "dog"), ("greyhound", "dog"))


def test_data_may_call_a_class_by_an_alias():
    label_set = Vocabulary(CLASSES, aliases=ALIASES).label_set(("sofa", "dog"))
    columns = {name: label_set.column(name) for name in ("sofa", "couch", "dog", "puppy", "greyhound", "cat", "kitten")}
    assert columns == {"sofa": 0, "couch": 0, "dog": 1, "puppy": 1, "greyhound": 1, "cat": -1, "kitten": -1}
    assert label_set.names == ("sofa", "dog")  # an alias is no column
    assert label_set.multiplicity.tolist() == [1, 1]


def test_an_alias_of_a_class_that_the_stream_does_not_know_is_unknown_too():
    label_set = Vocabulary(CLASSES, aliases=ALIASES).label_set(("background", "cat"))
    assert [label_set.column(name) for name in ("couch", "puppy", "dog")] == [IGNORE_LABEL] * 3


def test_masks_and_tags_of_a_folder_with_other_names(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    mask = np.array([[0, 1, 2], [3, 4, 255]], np.uint8)  # background, couch, puppy, dog, horse, ignored
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(tmp_path / "images" / "a.png")
    (tmp_path / "classes.json").write_text(
        json.dumps({"names": ["background", "couch", "puppy", "dog", "horse"], "ignore": 255})
    )
    (tmp_path / "splits.json").write_text(json.dumps({"train": ["a"], "image_labels": {"a": [1, 2, 3, 4]}}))
    label_set = Vocabulary(CLASSES, aliases=ALIASES).label_set()
    example = FolderSource(tmp_path, "train", label_set, masks=True, tags=True)[0]
    assert example["label"].tolist() == [[0, 2, 1], [1, -1, -1]]
    assert example["tags"].tolist() == [1, 2]  # puppy and dog are one tag


@pytest.mark.parametrize(
    ("aliases", "problem"),
    [
        ((("settee", "sofas"),), "class 'sofas' is not in the vocabulary: did you mean sofa"),
        ((("cat", "dog"),), "vocabulary.aliases: 'cat', for 'dog', is a class itself: keep one of the two"),
        ((("pet", "dog"), ("pet", "cat")), "vocabulary.aliases: 'pet', for 'dog', is listed twice"),
    ],
)
def test_an_alias_names_one_class_and_is_none(aliases, problem):
    with pytest.raises(UserError, match=problem):
        Vocabulary(CLASSES, aliases=aliases)


def test_a_resumed_run_says_that_aliases_have_changed(tmp_path):
    """Labels and tags depend on them; checkpoints of runs without know nothing of them."""
    config = tiny.get_config()
    config.data_root = str(tiny.write_data(tmp_path).parent)

    def data(*aliases):
        config.vocabulary.aliases = aliases
        run = from_config(config)
        return assemble.data_settings(run, assemble.open_streams(run))

    before = json.loads(json.dumps(data(("rose", "red"))))
    assert changes(before, data(("rose", "red"))) == []
    assert changes(before, data(("rose", "grey"))) == ["vocabulary.aliases: (('rose', 'grey'),), was [['rose', 'red']]"]
    assert "vocabulary.aliases" not in data()
