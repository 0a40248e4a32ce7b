"""Class lists, their unions and the definitions of base and novel, against published counts and the authors' files."""

import dataclasses
import json
from importlib import resources

import numpy as np
import pytest

from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary.class_lists import as_original, class_list, raw
from larvseg_jax.vocabulary.shared_rows import unite

COUNTS = {
    "coco_stuff_171": 171,
    "ade20k_150": 150,
    "ade20k_full_847": 847,
    "pascal_context_59": 59,
    "pascal_context_459": 459,
    "voc_20": 20,
    "cityscapes_19": 19,
    "imagenet21k_subset_124": 124,
    "imagenet21k_subset_585": 585,
    "imagenet_11k": 11_276,
    "imagenet_21k": 21_841,
    "imagenet_s_919": 919,
    "imagenet_21k_p_fall11": 11_221,
    "imagenet_21k_p_winter21": 10_450,
}


def lists(*keys):
    return [class_list(key) for key in keys]


@pytest.mark.parametrize(("key", "count"), COUNTS.items())
def test_published_counts(key, count):
    classes = class_list(key)
    assert len(classes) == len(classes.titles) == len(classes.synsets) == len(set(classes.ids)) == count
    assert raw(key)["count"] == count


def test_every_file_is_readable():
    folder = resources.files("larvseg_jax.vocabulary") / "lists"
    names = sorted(f.name for f in folder.iterdir())
    assert len(names) == 26
    assert all(json.loads((folder / name).read_text()) for name in names)


def test_index_by_name_title_and_synset():
    ade, i21k, coco = lists("ade20k_150", "imagenet_21k", "coco_stuff_171")
    assert (ade.index("wall"), ade.index("building"), ade.index("flag")) == (0, 1, 149)
    assert ade.index("n02913152") == 1  # building, edifice
    assert i21k.titles[i21k.index("n02084071")] == "dog"
    assert i21k.index("dog") == i21k.index("n02084071")
    assert coco.index("person") == 0
    assert coco.titles[coco.index("wall-brick")] == "wall"
    with pytest.raises(UserError, match=r"'wall' names 7 classes of coco_stuff_171 \(wall-brick, "):
        coco.index("wall")
    with pytest.raises(UserError, match=r"'mouse' names 2 classes.*n02330245, n03793489"):
        i21k.index("mouse")
    with pytest.raises(UserError, match="'windowpain' is no class of ade20k_150: did you mean windowpane"):
        ade.index("windowpain")
    with pytest.raises(UserError, match="no class list 'ade': use one of ade20k_150"):
        class_list("ade")


def test_official_and_training_labels_of_coco_stuff():
    coco = raw("coco_stuff_171")
    values = {int(v): i for v, i in coco["label_png_value_to_index"].items()}
    unused = {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}  # street sign, hat, ..., hair brush
    assert [values[v] for v in sorted(values)] == list(range(171))
    assert set(range(182)) - set(values) == unused
    assert {int(i) - 1: c for i, c in coco["official_id_to_index"].items()} == values
    assert coco["classes"][values[0]] == "person"
    assert len(set(class_list("coco_stuff_171").titles)) == 160
    assert sum(title == "floor" for title in class_list("coco_stuff_171").titles) == 5


@pytest.mark.parametrize(
    ("key", "definition", "base", "novel"),
    [
        ("ade20k_150", "split", 58, 92),
        ("ade20k_150", "processed", 63, 87),
        ("ade20k_full_847", "split", 92, 755),
        ("ade20k_full_847", "processed", 94, 753),
        ("ade20k_full_847", "things80", 38, 809),
    ],
)
def test_base_and_novel(key, definition, base, novel):
    found = class_list(key).base_novel(definition)
    assert (found.label, len(found.base)) == (f"{base}/{novel}", base)
    column = {"split": "split_classes", "processed": "processed_classes", "things80": "classes"}[definition]
    names = raw("coco_stuff_171")[column][: 80 if definition == "things80" else None]
    assert found.base == set(class_list(key).ids) & set(names)  # exact strings, computed anew


def test_definitions_that_do_not_exist():
    with pytest.raises(UserError, match="no base/novel definition 'paper' for ade20k_150.*have processed, .*split"):
        class_list("ade20k_150").base_novel("paper")
    with pytest.raises(UserError, match="'split' for voc_20"):
        class_list("voc_20").base_novel("split")


@pytest.mark.parametrize(
    "name",
    [
        "union_a150_c171",
        "union_a847_c171",
        "union_a150_city19",
        "union_a847_city19",
        "union_pc59_c171",
        "union_pc459_c171",
    ],
)
def test_unions_by_title_are_the_authors(name):
    original = raw(name)
    union = unite(lists(*original["label_to_union"]), "title")
    assert set(union.classes) == set(original["classes"])
    assert len(union.classes) == len(original["classes"])
    for key, rows in original["label_to_union"].items():
        assert union.names[key] == tuple(original["classes"][row] for row in rows)


def test_union_of_raw_names_is_the_authors():
    original = raw("union_c171raw_a150")
    coco = class_list("coco_stuff_171")
    union = unite([dataclasses.replace(coco, titles=coco.ids), class_list("ade20k_150")], "title")
    assert (len(union.classes), set(union.classes)) == (274, set(original["classes"]))


def test_all_synsets_by_the_authors_names():
    union = unite([class_list("coco_stuff_171"), as_original("union_i21k_c171_derived:imagenet_21k")], "title")
    assert len(union.classes) == 20_165
    assert set(union.classes) == set(raw("union_i21k_c171_derived")["classes"])
    with pytest.raises(UserError, match="union_a150_c171 does not unite imagenet_21k: it has ade20k_150"):
        as_original("union_a150_c171:imagenet_21k")


def test_one_row_per_synset():
    union = unite(lists("coco_stuff_171", "imagenet_21k"), "synset")
    i21k = class_list("imagenet_21k")
    assert len(set(union.names["imagenet_21k"])) == 21_841
    assert (
        len(union.classes)
        == len(set(union.classes))
        == 21_841 + 160 - len(union.shared("coco_stuff_171", "imagenet_21k"))
    )
    # Shared exactly where one synset has the name as its first lemma.
    lemma, times = np.unique(i21k.titles, return_counts=True)
    once = set(lemma[times == 1]) & set(class_list("coco_stuff_171").titles)
    assert set(union.shared("coco_stuff_171", "imagenet_21k")) == once
    assert union.names["imagenet_21k"][i21k.index("n02924116")] == "bus"
    assert set(union.ambiguous) == set(lemma[times > 1]) & set(class_list("coco_stuff_171").titles)
    mice = {union.names["imagenet_21k"][i21k.index(w)] for w in ("n02330245", "n03793489")}
    assert mice == {"mouse (n02330245)", "mouse (n03793489)"}
    assert "mouse" in union.names["coco_stuff_171"]


def test_shared_by_synset_between_ade_and_its_pictures():
    union = unite(lists("ade20k_150", "coco_stuff_171", "imagenet21k_subset_124"), "synset")
    assert union.names["imagenet21k_subset_124"] == class_list("imagenet21k_subset_124").titles
    assert len(union.classes) == 247


def test_nothing_shared():
    union = unite(lists("coco_stuff_171", "ade20k_150"), "none")
    assert len(union.classes) == 160 + 150
    assert union.shared("coco_stuff_171", "ade20k_150") == ()
    assert union.names["ade20k_150"][0] == "wall (ade20k_150)"
    assert union.names["coco_stuff_171"][class_list("coco_stuff_171").index("wall-wood")] == "wall"


def test_a_row_never_holds_two_synsets_of_one_list():
    def made(key, *classes):
        titles, synsets = zip(*classes, strict=True)
        ids = tuple(f"{key}{i}" for i in range(len(classes)))
        return dataclasses.replace(class_list("voc_20"), key=key, ids=ids, titles=titles, synsets=synsets)

    tagged = made("tagged", ("crane", ("n1",)), ("bird", ("n2",)))
    scenes = made("scenes", ("bird", ("n1",)))  # the synset says n1, the name n2
    masks = made("masks", ("bird", ()))
    union = unite([tagged, scenes, masks], "synset")
    assert union.names["scenes"] == ("crane",)
    assert len({*union.names["tagged"]}) == 2


@pytest.mark.parametrize(
    ("keys", "share", "problem"),
    [
        (("voc_20", "voc_20"), "title", "class_lists.lists names 'voc_20' twice"),
        (("voc_20",), "name", "class_lists.share is 'name': use 'title', 'synset' or 'none'"),
    ],
)
def test_unions_that_cannot_be(keys, share, problem):
    with pytest.raises(UserError, match=problem):
        unite(lists(*keys), share)
