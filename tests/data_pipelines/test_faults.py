"""Faults of data and the errors that carry their parts."""

import pickle

import numpy as np
import pytest
from PIL import Image

from data_pipelines.decode import check_readable, decode_image, decode_mask
from data_pipelines.examples import LabelMap, tag_faults
from data_pipelines.faults import Fault, raise_first
from data_pipelines.folder_classes import ColourTable
from larvseg_jax.errors import DataError, UserError
from larvseg_jax.vocabulary import Vocabulary

NAMES = ("background", "cat", "dog", "grass")


def test_the_first_fault_of_level_error_is_raised():
    raise_first([])
    raise_first([Fault("spare mask", "a.png has no photo")])
    faults = [Fault("spare mask", "a"), Fault("tag", "b", "mend", "(2 of 3)"), Fault("files", "c", "add")]
    with pytest.raises(UserError, match=r"^b \(2 of 3\): mend$"):
        raise_first(faults)
    with pytest.raises(UserError, match=r"^c: the run does not start: complete"):
        raise_first([Fault("files", "c")])


def test_data_errors_survive_another_process():
    error = pickle.loads(pickle.dumps(DataError("tag", "a.json: 7", "correct it")))
    assert (str(error), error.kind, error.what, error.remedy) == (
        "a.json: 7: correct it",
        "tag",
        "a.json: 7",
        "correct it",
    )


LABEL_MAP = LabelMap.build(NAMES, 255, Vocabulary(NAMES, (), ()).label_set(), "classes.json")
IMAGE = np.zeros((2, 2, 3), np.uint8)


@pytest.mark.parametrize(
    ("call", "kind", "what", "remedy"),
    [
        (lambda: decode_image(b"x", "a"), "unreadable", "a: no readable picture in these 1 bytes", "replace the file"),
        (lambda: check_readable(b"x", "a"), "unreadable", "a: no readable picture in these 1 bytes", "replace"),
        (lambda: decode_mask(b"x", "a"), "unreadable", "a: no readable mask in these 1 bytes", "replace the file"),
        (lambda: LABEL_MAP.label(np.zeros((2, 3), np.uint8), IMAGE, "a"), "size", "a: mask of 3x2 pixels", "make them"),
        (lambda: LABEL_MAP.label(np.full((2, 2), 7, np.uint8), IMAGE, "a"), "value", "a: value 7 at row 0", "correct"),
        (lambda: LABEL_MAP.tags([1, 4], "a"), "tag", "a: image label 4 is not among the classes 0..3 of cl", "correct"),
    ],
)
def test_data_errors_have_parts(call, kind, what, remedy):
    with pytest.raises(DataError) as caught:
        call()
    assert caught.value.kind == kind
    assert caught.value.what.startswith(what)
    assert caught.value.remedy.startswith(remedy)
    assert str(caught.value) == f"{caught.value.what}: {caught.value.remedy}"


def test_colours_that_are_no_class_have_parts(tmp_path):
    table = ColourTable.build(["a"], [[1, 2, 3]], None, tmp_path / "classes.json")
    Image.fromarray(IMAGE).save(tmp_path / "m: colour [.png")
    data = (tmp_path / "m: colour [.png").read_bytes()
    with pytest.raises(DataError) as caught:
        table.decode(data, "m")
    assert (caught.value.kind, caught.value.remedy.partition(",")[0]) == ("value", "add it there")
    # A file name cannot make an unreadable mask a wrong colour.
    with pytest.raises(DataError) as caught:
        table.decode(data[:20], "m: colour [.png")
    assert caught.value.kind == "unreadable"


def test_tag_faults_name_each_label():
    assert [fault.what for fault in tag_faults([0, -1, 3, 4, None], 4, "p", "list")] == [
        f"p: image label {value} is not among the classes 0..3 of list" for value in (-1, 4, None)
    ]
