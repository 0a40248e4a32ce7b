"""Evaluations of classes that the vocabulary was not made of, and among rivals: which column is which row."""

import dataclasses

import numpy as np
import pytest

from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.config import EvalConfig
from larvseg_jax.vocabulary import OTHER, Vocabulary
from larvseg_jax.vocabulary.catalogue import Catalogue, ClassListsConfig
from larvseg_jax.vocabulary.class_lists import class_list

KEY = "imagenet_s_919"


def test_the_919_synsets_and_their_values():
    """Against places in the authors' own list of names, which is sorted as the values are."""
    classes = class_list(KEY)
    assert len(classes) == 919
    assert list(classes.ids) == sorted(set(classes.ids))
    named = {0: "tench", 1: "goldfish", 2: "great white shark", 918: "toilet tissue", 917: "ear", 916: "bolete"}
    assert {i: classes.titles[i] for i in named} == named
    assert set(classes.ids) - set(class_list("imagenet_21k").ids) == {"n04399382"}
    assert classes.stored == (*classes.ids, OTHER)
    assert class_list("imagenet_21k").stored == class_list("imagenet_21k").ids


def catalogue(*lists, share="synset"):
    return Catalogue.of(Vocabulary(), ClassListsConfig(lists, share), [EvalConfig(class_list="coco_stuff_171")])


@pytest.fixture(scope="module")
def large():
    return catalogue("coco_stuff_171", "imagenet_21k")


def test_columns_of_imagenet_s_are_the_rows_of_its_synsets(large):
    label_set = large.label_set(EvalConfig(class_list=KEY), evaluation=True)
    row = dict(zip(class_list("imagenet_21k").ids, large.shared.names["imagenet_21k"], strict=True))
    row["n04399382"] = "teddy bear"  # which ImageNet-21K lacks and COCO-Stuff has
    assert [label_set.names[label_set.column(i)] for i in class_list(KEY).ids] == [row[i] for i in class_list(KEY).ids]
    assert [large.vocabulary.classes[r] for r in label_set.rows] == list(label_set.names)
    assert (len(label_set), label_set.rivals, label_set.column(OTHER)) == (919, 0, -1)
    assert len(large.vocabulary.classes) == 21_925  # the vocabulary is what it was


def test_all_synsets_compete_and_919_are_scored(large):
    label_set = large.label_set(EvalConfig(class_list=KEY, rivals="imagenet_21k"), evaluation=True)
    assert label_set.rivals == 21_841 - 918
    assert np.count_nonzero(label_set.multiplicity) == 21_841 + 1
    assert len(set(label_set.names)) == len(label_set) == 919 + 1 + label_set.rivals
    assert (label_set.names[919], label_set.multiplicity[919], label_set.column(OTHER)) == (OTHER, 0, 919)
    scored = large.label_set(EvalConfig(class_list=KEY), evaluation=True)
    assert label_set.names[:919] == scored.names
    np.testing.assert_array_equal(label_set.rows[:919], scored.rows)
    named = [large.vocabulary.classes[row] for row in label_set.rows]
    assert named[920:] == list(label_set.names[920:])
    assert {*named[:919], *named[920:]} == {*large.shared.names["imagenet_21k"], "teddy bear"}


def test_rivals_of_one_row_weigh_as_many_as_they_are():
    vocabulary = Vocabulary(("a", "b", "c", "d"))
    label_set = vocabulary.with_rivals(vocabulary.label_set(("c", "a")), ("b", "a", "d", "b"))
    assert label_set.names == ("c", "a", OTHER, "b", "d")
    assert label_set.rows.tolist() == [2, 0, 0, 1, 3]
    assert label_set.multiplicity.tolist() == [1, 1, 0, 2, 1]
    assert (label_set.column("c"), label_set.column("b"), label_set.column(OTHER)) == (0, -1, 2)


def test_a_class_that_no_list_has_is_named(large):
    small = catalogue("coco_stuff_171", "voc_20")
    with pytest.raises(UserError, match=r"'imagenet_s_919': its class n01440764 \(tench\) is in none of class_lists"):
        small.label_set(EvalConfig(class_list=KEY), evaluation=True)
    with pytest.raises(UserError, match="'imagenet_s_919' is not in class_lists.lists"):  # a stream must be in it
        large.label_set(EvalConfig(class_list=KEY))
    with pytest.raises(UserError, match="'ade20k_150' is not in class_lists.lists"):
        large.label_set(EvalConfig(class_list=KEY, rivals="ade20k_150"), evaluation=True)


def test_classes_given_by_name_may_have_rivals_too(large):
    config = dataclasses.replace(EvalConfig(classes=("dog", "cat")), rivals="coco_stuff_171")
    label_set = large.label_set(config, evaluation=True)
    assert label_set.names[:3] == ("dog", "cat", OTHER)
    assert label_set.rivals == 158
