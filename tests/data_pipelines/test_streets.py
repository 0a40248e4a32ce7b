"""Made street scenes: the folder is one of people's own data, masks hide novel things, tags name all that is there."""

import csv

import numpy as np
import pytest
from PIL import Image

from configs import own_data
from data_pipelines.scenes import streets
from larvseg_jax import cli
from larvseg_jax.assemble import make_evaluators, open_streams
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(streets, "VALIDATION", 3)
    folder = streets.write_streets(tmp_path_factory.mktemp("made") / "streets", 4, 6)
    monkeypatch.undo()
    return folder


def test_masks_of_training_hide_novel_things_and_those_of_validation_do_not(folder):
    for i in range(4):
        image, truth = streets.picture("train", i)
        stored = np.array(Image.open(folder / "masks" / "train" / f"{i:04d}.png"))
        np.testing.assert_array_equal(stored, np.where(truth < len(streets.BASE), truth, 255))
        np.testing.assert_array_equal(np.array(Image.open(folder / "images" / "train" / f"{i:04d}.png")), image)
    stored = [np.array(Image.open(path)) for path in sorted((folder / "masks" / "val").iterdir())]
    assert len(stored) == 3
    for i, mask in enumerate(stored):
        np.testing.assert_array_equal(mask, streets.picture("val", i)[1])
    assert max(mask.max() for mask in stored) >= len(streets.BASE)


def test_tags_name_all_that_a_photo_shows(folder):
    with (folder / "tagged" / "tags.csv").open() as file:
        rows = {row["file"]: set(row["tags"].split(";")) for row in csv.DictReader(file)}
    assert len(rows) == 6
    for i in range(6):
        shown = {streets.CLASSES[c] for c in np.unique(streets.picture("tagged", i)[1])}
        assert rows[f"{i:04d}.png"] == shown
        assert len(shown & set(streets.BASE)) >= 4  # whole scenes


def test_pictures_are_the_same_each_time_and_differ():
    first, again = streets.picture("val", 5), streets.picture("val", 5)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    others = [streets.picture("val", 6), streets.picture("train", 5)]
    assert all((first[0] != other[0]).mean() > 0.5 for other in others)


def test_novel_things_are_small_and_lie_where_they_belong():
    masks = [streets.picture("tagged", i)[1] for i in range(12)]
    share = np.mean([(mask >= len(streets.BASE)).mean() for mask in masks])
    assert 0.02 < share < 0.12
    sky = streets.CLASSES.index("sky")
    assert all((mask[:8] == sky).mean() > 0.4 for mask in masks)
    assert all((mask[-8:] == streets.CLASSES.index("road")).mean() > 0.4 for mask in masks)


def test_own_data_reads_the_folder(folder):
    run = from_config(own_data.get_config(f"{folder},novel={'+'.join(streets.NOVEL)}"))
    assert run.vocabulary.base == streets.BASE
    assert set(run.vocabulary.novel) == set(streets.NOVEL)
    opened = open_streams(run)
    assert {name: len(stream.source) for name, stream in opened.items()} == {
        "masks": 4,
        "tagged": 6,
        "tags_of_masks": 4,
    }
    found = opened["tagged"].source[0]["tags"]
    names = {run.vocabulary.classes[run.catalogue.label_set(run.streams["tagged"]).rows[c]] for c in found}
    assert names == {streets.CLASSES[c] for c in np.unique(streets.picture("tagged", 0)[1])}
    evaluator = make_evaluators(run, make_mesh(8, 1))["val"]
    assert {"base", "novel"} == set(run.vocabulary.groups(evaluator.label_set.names))


def test_the_command_writes_a_new_folder_only(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(streets, "VALIDATION", 1)
    cli.run("scenes", [f"--streets={tmp_path / 'new'}", "--masked=1", "--tagged=0"])
    assert "novel=clock+ball+bird" in capsys.readouterr().out
    assert not (tmp_path / "new" / "tagged").exists()
    with pytest.raises(UserError, match="new is not empty: give a new folder"):
        streets.write_streets(tmp_path / "new", 1, 0)
