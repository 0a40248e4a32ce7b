"""Files that are removed or cut short while a run reads them; prepared sets: test_tfds_source.py."""

import os
import shutil

import pytest

from data_pipelines.sources import SourceConfig, open_source
from data_pipelines.streams import Stream, iterate, step_batches
from data_pipelines.views import MaskView, TagView
from larvseg_jax.errors import DataError
from larvseg_jax.vocabulary import Vocabulary
from tests import tiny


def remove(path):
    path.unlink()


def empty(path):
    os.truncate(path, 0)


def cut_in_half(path):
    os.truncate(path, path.stat().st_size // 2)


def replaced_by_a_folder(path):
    path.unlink()
    path.mkdir()


DAMAGE = (remove, empty, cut_in_half, replaced_by_a_folder)


def mended(stream, broken):
    """The ids of some batches, checked to be other photos than the broken ones."""
    batches = list(iterate(step_batches({"a": stream}, seed=0, total_steps=8, replace=True), 0, 2))
    ids = {str(i) for batch in batches for i in batch["a"]["id"]}
    assert ids
    assert not ids & broken
    assert sum(bool(unusable) for batch in batches for unusable in batch["a"]["unusable"]) >= 2


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("part", ["images", "masks"])
def test_of_a_folder(tmp_path, part, damage):
    folder = tiny.write_data(tmp_path)
    label_set = Vocabulary(tiny.NAMES, (), ()).label_set()
    source = open_source(SourceConfig(folder="tiny"), tmp_path, label_set, "masks")
    damage(folder / part / "p03.png")
    with pytest.raises(DataError, match=rf"{part}/p03\.png: ") as caught:
        source[3]
    assert "\n" not in str(caught.value)
    view = MaskView(crop_size=16, scale=(64, 24))
    mended(Stream(source, label_set, view, 4), {"p03"})


@pytest.mark.parametrize("damage", [*DAMAGE, lambda path: shutil.rmtree(path.parent)])
def test_of_class_folders(tmp_path, damage):
    folder = tiny.write_data(tmp_path / "data")
    for i, name in enumerate(("red", "red", "blue", "grey")):
        (tmp_path / "tagged" / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "images" / f"p{i:02}.png", tmp_path / "tagged" / name)
    label_set = Vocabulary(tiny.NAMES, (), ()).label_set()
    source = open_source(SourceConfig(class_folders="tagged"), tmp_path, label_set, "tags")
    damage(tmp_path / "tagged/blue/p02.png")
    with pytest.raises(DataError, match=r"tagged/blue/p02\.png: "):
        source[0]
    view = TagView(crop_size=16, scale=(64, 24), tags_from="image")
    mended(Stream(source, label_set, view, 4), {"blue/p02.png"})
