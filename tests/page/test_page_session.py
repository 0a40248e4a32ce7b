"""What a page does without a browser: looks, teaches, compares, saves; and what is wrong changes nothing."""

import copy
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from larvseg_jax.errors import UserError
from larvseg_jax.page.session import Limits, Session, Sessions

LIMITS = Limits(3 << 29, 1)


@pytest.fixture
def session(segmenter, tmp_path):
    return Session({"m": segmenter}, LIMITS, tmp_path)


@pytest.fixture
def two(segmenter, tmp_path):
    """The same model, and one that was taught a class that the other has not."""
    other = copy.copy(segmenter)
    other.rename("cat", "tiger")
    return Session({"a": segmenter, "b": other}, LIMITS, tmp_path)


def test_the_classes_chosen_compete_and_those_in_words(session, segmenter, halves):
    assert session.look(halves, [], "") == []
    np.testing.assert_array_equal(session.results["m"].labels, segmenter(halves).labels)
    session.look(halves, ["sofa & <b>"], " dog.n.01 ,CAT ")
    assert session.results["m"].names == ("sofa & <b>", "dog", "cat")
    assert session.results["m"].top_labels is None
    session.look("", [], "")
    assert session.results == {}


@pytest.mark.parametrize(
    ("photo", "chosen", "text", "message"),
    [
        ("large.png", [], "", "1.2 megapixels"),
        ("broken.png", [], "", "broken.png"),
        ("", ["cat"], "", "1 class competes"),
        ("", [], "unicorn, dog", "'unicorn' is not in the vocabulary"),
        ("", [], "@names.txt", "the page reads none"),
        ("", [], "cat, names.txt", "names.txt is a file"),
    ],
)
def test_what_is_wrong_is_one_line_and_what_was_shown_stays(
    session, halves, tmp_path, monkeypatch, photo, chosen, text, message
):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (1200, 1000)).save(tmp_path / "large.png")
    (tmp_path / "broken.png").write_bytes(b"?")
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    session.look(halves, [], "")
    before = dict(session.results)
    with pytest.raises(UserError, match=message) as error:
        session.look(str(tmp_path / photo) if photo else halves, chosen, text)
    assert "\n" not in str(error.value)
    assert str(tmp_path) not in str(error.value)
    assert (session.results, session.photo) == (before, halves)


def test_a_very_wide_picture_is_remarked_on(session, tmp_path):
    Image.new("RGB", (4000, 40)).save(tmp_path / "wide.png")
    (remark,) = session.look(str(tmp_path / "wide.png"), [], "")
    assert remark.startswith("wide.png is 4000 x 40 pixels")


def test_a_class_that_was_clicked_at_is_found_on_this_page_alone_until_it_is_removed(
    session, segmenter, halves, tmp_path
):
    with pytest.raises(UserError, match="click on the thing"):
        session.teach("mug")
    session.look(halves, [], "")
    session.click(session.token, 60.0, 80.0)
    session.click("another picture", 1.0, 1.0)
    session.click(session.token, 40.0, 1e9)  # brought into the picture
    assert session.clicks == {halves: [(60.0, 80.0), (40.0, 159.0)]}
    with pytest.raises(UserError, match="knows 'cat' already"):
        session.teach("cat")
    session.teach(" mug ")
    assert (session.taught, session.clicks) == (["mug"], {})
    assert ("mug (novel)", "mug") in session.choices
    session.look(halves, [], "")
    found = session.results["m"]
    assert (found.labels[:, :90] == found.names.index("mug")).mean() > 0.9
    assert "mug" not in segmenter.classes
    assert "mug" not in dict(Session({"m": segmenter}, LIMITS, tmp_path).choices)
    session.remove("mug")
    session.look(halves, [], "")
    assert "mug" not in session.results["m"].names
    with pytest.raises(UserError, match="no taught class"):
        session.remove("cat")


def test_two_models_take_of_the_chosen_classes_those_they_know(two, halves):
    assert [label for label, _ in two.choices] == [
        "sky", "cat (base)", "dog (novel)", "sofa & <b> (base)", "tiger (base)",
    ]  # fmt: skip
    two.look(halves, ["tiger", "cat", "dog"], "")
    assert {name: result.names for name, result in two.results.items()} == {"a": ("cat", "dog"), "b": ("tiger", "dog")}
    with pytest.raises(UserError, match="^a: none of the chosen classes is known"):
        two.look(halves, ["tiger"], "")
    two.click(two.token, 60.0, 80.0)
    with pytest.raises(UserError, match="^b: this model knows 'tiger' already"):
        two.teach("tiger")
    assert "tiger" not in two._models["a"].classes


def test_the_zip_has_the_files_of_a_prediction(session, two, halves):
    with pytest.raises(UserError, match="nothing to save"):
        session.archive([])
    session.look(halves, [], "")
    for _ in range(2):  # the second one replaces the first
        written = session.archive(["coco", "polygons"])
    assert [path.name for path in written.parent.iterdir()] == ["two halves.zip"]
    with zipfile.ZipFile(written) as archive:
        ends = {name.removeprefix("two halves") for name in archive.namelist()}
        assert ends == {".png", "_labels.png", "_colours.png", ".json", "_coco.json", "_polygons.json"}
        with archive.open("two halves_labels.png") as file:
            np.testing.assert_array_equal(np.asarray(Image.open(file)), session.results["m"].labels)
        assert json.loads(archive.read("two halves.json"))["names"] == list(session.results["m"].names)
    two.look(halves, [], "")
    with zipfile.ZipFile(two.archive([])) as archive:
        assert {name.split("/")[0] for name in archive.namelist()} == {"a", "b"}


def test_pages_know_nothing_of_each_other_and_the_oldest_is_forgotten(segmenter, halves, tmp_path):
    sessions = Sessions({"m": segmenter}, LIMITS, tmp_path)
    sessions.of("first").look(halves, [], "")
    assert sessions.of("first").results
    assert not sessions.of("second").results
    for key in ("third", "fourth"):
        sessions.of(key)
    assert sessions.of("first").results  # used last
    sessions.of("../../fifth")
    assert sessions.of("first").results
    sessions.end("first")
    assert not sessions.of("first").results
    assert all(path.name.startswith("session-") for path in tmp_path.iterdir())
