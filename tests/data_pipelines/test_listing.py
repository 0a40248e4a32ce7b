"""The listing of data: all faults at once, those that a source raises and those that only the doctor says."""

import builtins
import os

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from data_pipelines.class_folders import ClassFolderSource, class_folders, unknown_folders
from data_pipelines.class_listing import list_class_folders
from data_pipelines.faults import KINDS
from data_pipelines.folder import FolderSource
from data_pipelines.listing import list_folder
from data_pipelines.prepared import is_prepared, open_prepared, read_metadata
from larvseg_jax.errors import DataError
from larvseg_jax.vocabulary import Vocabulary
from tests.data_pipelines.test_folder import NAMES, STEMS, change
from tests.data_pipelines.test_folder import folder as folder  # fixture
from tests.data_pipelines.test_folder_splits import split_folders as split_folders  # fixture

LABELS = Vocabulary(NAMES, (), ()).label_set()
IMAGE = np.zeros((9, 9, 3), np.uint8)


def said(faults):
    return [(fault.kind, fault.what.rpartition("/")[2], fault.remedy.partition(" ")[0]) for fault in faults]


def test_a_good_folder_has_no_faults(folder):
    found = list_folder(folder, "train", masks=True, tags=True)
    assert found.faults == ()
    assert found.stems == STEMS
    assert [os.path.basename(file) for file in found.images] == ["one.png", "two.PNG", "three.jpeg"]
    assert found.tags == ((3, 1), (2, 2), ())
    photo = found.read(1)
    assert (photo.id, photo.image_name, photo.mask_name) == ("two", found.images[1], found.masks[1])
    assert photo.mask == (folder / "masks" / "two.png").read_bytes()
    assert photo.tags == (2, 2)


def test_all_faults_of_a_folder_are_listed(folder):
    change(
        folder / "splits.json",
        train=["one", 7, "one", "two", "three", "none"],
        image_labels={"one": [1, 9, "cat", True], "two": 3, "three": [2]},
    )
    (folder / "images" / "three.png").write_bytes(b"")
    (folder / "masks" / "two.png").rename(folder / "masks" / "two_mask.png")
    found = list_folder(folder, "train", masks=True, tags=True)
    assert said(found.faults) == [
        ("files", "splits.json: split 'train' holds 7", "write"),
        ("files", "splits.json: split 'train' lists 'one' twice", "remove"),
        ("files", "three.png are both photo 'three'", "remove"),
        ("files", "none.jpg does not exist", "add"),
        ("tag", "splits.json: photo 'none' has no entry in `image_labels`", "add"),
        *(("tag", "classes.json", "correct") for _ in range(3)),
        ("tag", "splits.json, photo 'two': image labels are 3", "give"),
        ("files", "two.png does not exist, there is two_mask.png", "add"),
        ("files", "none.png does not exist", "add"),
        ("spare mask", "images", ""),
    ]
    assert "image label True is not among the classes 0..3" in found.faults[7].what
    assert "masks/two_mask.png has no photo in" in found.faults[-1].what
    # What can be looked at all the same.
    assert (found.stems, found.tags) == (("one", "three"), ((1,), (2,)))


def test_the_source_raises_the_first_fault_of_the_listing(folder):
    change(folder / "splits.json", train=["gone", "one", "lost"])
    first = list_folder(folder, "train", masks=True, tags=False).faults[0]
    with pytest.raises(DataError, match=r"gone\.jpg does not exist \(2 of 3 files missing\): add it or take") as caught:
        FolderSource(folder, "train", LABELS, masks=True, tags=False)
    assert caught.value.kind == first.kind == "files"
    assert caught.value.what == f"{first.what} (2 of 3 files missing)"
    assert caught.value.remedy == first.remedy


def test_spare_masks_are_a_warning_and_do_not_stop_the_source(folder):
    (folder / "masks" / "one.png").rename(folder / "masks" / "spare.png")
    change(folder / "splits.json", train=["two"], val=["three"])
    found = list_folder(folder, "train", masks=True, tags=False)
    assert [(fault.kind, KINDS[fault.kind].level) for fault in found.faults] == [("spare mask", "warning")]
    assert len(FolderSource(folder, "train", LABELS, masks=True, tags=False)) == 1
    assert list_folder(folder, "train", masks=False, tags=False).faults == ()


def test_two_masks_of_one_photo_are_a_fault_only_where_the_photo_is_used(folder):
    (folder / "masks" / "two.PNG").write_bytes(b"")
    assert said(list_folder(folder, "train", masks=True, tags=False).faults) == [
        ("files", "two.png are both photo 'two'", "remove")
    ]
    assert list_folder(folder, "suggested.train_masks", masks=True, tags=False).faults == ()


def test_missing_folders_are_one_fault_each(folder):
    (folder / "masks").rename(folder / "m")
    assert said(list_folder(folder, "train", masks=True, tags=False).faults) == [
        ("files", "masks does not exist", "it")
    ]
    (folder / "images").rename(folder / "i")
    found = list_folder(folder, "train", masks=False, tags=False)
    assert said(found.faults) == [("files", "images does not exist", "it")]
    assert len(found) == 0


def test_all_faults_of_a_split_folder_are_listed(split_folders):
    images = split_folders / "images" / "train"
    (images / "notes.txt").write_text("mine")
    (images / "day1").mkdir()
    (images / "one.jpg").write_bytes(b"")
    (split_folders / "masks" / "train" / "two.png").unlink()
    (split_folders / "masks" / "train" / "spare.png").write_bytes(b"")
    found = list_folder(split_folders, "train", masks=True, tags=True)
    assert [(fault.kind, fault.what.split("/")[-1].split(" (")[0]) for fault in found.faults] == [
        ("files", f"{split_folders.name} has no splits.json, whose `image_labels` are the tags of its photos"),
        ("files", "day1 is a folder"),
        ("files", "notes.txt is no picture"),
        ("files", "one.png are both photo 'one'"),
        ("files", "two.png does not exist"),
        ("spare mask", "train"),
    ]
    assert found.stems == ("one",)
    nothing = list_folder(split_folders, "test", masks=True, tags=False)
    assert said(nothing.faults) == [("files", "test does not exist, it has the folders train, val", "put")]


def test_listing_opens_no_picture_and_asks_for_no_size(split_folders, monkeypatch):
    touched = []

    def noted(function):
        return lambda path, *args, **options: touched.append(str(path)) or function(path, *args, **options)

    monkeypatch.setattr(builtins, "open", noted(open))
    monkeypatch.setattr(os, "stat", noted(os.stat))
    found = list_folder(split_folders, "train", masks=True, tags=False)
    listed = list_class_folders(split_folders / "images")
    assert any(path.endswith("classes.txt") for path in touched)
    assert not [path for path in touched if path.lower().endswith((".png", ".jpeg"))]
    found.read(0)
    listed.read(0)
    assert len([path for path in touched if path.lower().endswith((".png", ".jpeg"))]) == 3  # photo, mask, photo


def class_tree(root):
    for name in ("cat/b.png", "cat/a.png", "dgo/c.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGE).save(root / name)
    return root


def test_all_faults_of_class_folders_are_listed(tmp_path):
    root = class_tree(tmp_path)
    (root / "cat" / "list.csv").touch()
    (root / "cat" / "more").mkdir()
    (root / "dog").mkdir()
    (root / "beside.png").touch()
    found = list_class_folders(root)
    assert said(found.faults) == [
        ("files", "beside.png lies beside the class folders", "move"),
        ("files", "list.csv is no picture (jpg, jpeg, png, webp, bmp, tif, tiff)", "convert"),
        ("files", "more is a folder", "pictures"),
        ("files", "dog holds no pictures", "put"),
    ]
    assert found.photos_per_class.tolist() == [2, 1, 0]
    assert [(found.read(i).id, found.read(i).tags) for i in range(len(found))] == [
        ("cat/a.png", (0,)),
        ("cat/b.png", (0,)),
        ("dgo/c.png", (1,)),
    ]
    assert said(unknown_folders(root, found.folders, LABELS)) == [
        ("files", "dgo: 'dgo' is no class of the stream, did you mean dog?", "rename")
    ]
    with pytest.raises(DataError, match="beside"):
        class_folders(root)


def test_an_empty_folder_of_class_folders(tmp_path):
    found = list_class_folders(tmp_path)
    assert (len(found), len(found.faults)) == (0, 1)
    with pytest.raises(DataError, match="has no class folders: make one per class"):
        ClassFolderSource(tmp_path, "train", LABELS)


def test_a_folder_that_cannot_be_listed_is_a_fault(tmp_path, monkeypatch):
    root = class_tree(tmp_path)
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("dgo"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = list_class_folders(root)
    assert said(found.faults) == [("files", "dgo: cannot be listed (Permission denied)", "check")]
    assert found.photos_per_class.tolist() == [2, 0]


class Plain(tfds.core.GeneratorBasedBuilder):
    """Two photos with tags, without masks."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "tags": tfds.features.Sequence(tfds.features.ClassLabel(names=NAMES)),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._examples()}

    def _examples(self):
        for i in range(2):
            yield f"p{i}", {"id": f"p{i}", "image": cv2.imencode(".png", IMAGE)[1].tobytes(), "tags": [i, 3]}

    def _generate_examples(self):
        """Abstract in TFDS; the split calls `_examples` itself."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("prepared")
    Plain(data_dir=root, file_format="array_record").download_and_prepare()
    return root / "plain" / "1.0.0"


def test_a_prepared_set_without_masks_is_a_fault_and_its_photos_can_be_read(prepared):
    found = open_prepared(prepared, "train", masks=True)
    assert [(fault.kind, fault.remedy) for fault in found.faults] == [("features", "prepare it anew")]
    assert found.faults[0].what == f"{prepared}: no feature 'mask', only id, image, tags"
    photos = {found.read(i).id: found.read(i) for i in range(len(found))}
    assert [(photo.mask, photo.tags) for _, photo in sorted(photos.items())] == [(None, (0, 3)), (None, (1, 3))]
    assert open_prepared(prepared, "train", masks=False).faults == ()
    assert found.names == NAMES


def test_damaged_metadata_of_a_prepared_set(prepared, tmp_path):
    assert is_prepared(prepared)
    assert not is_prepared(tmp_path)
    assert read_metadata(prepared) == {}
    (tmp_path / "metadata.json").write_text('{"layout": "x"}')
    assert read_metadata(tmp_path) == {"layout": "x"}
    (tmp_path / "metadata.json").write_text("[1]")
    assert read_metadata(tmp_path) == {}
    (tmp_path / "dataset_info.json").write_text("{")
    with pytest.raises(DataError, match=r"cannot be opened \(.*\): prepare it anew") as caught:
        open_prepared(tmp_path, "train", masks=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("to", ["nowhere", "itself"])
@pytest.mark.parametrize("place", ["tagged/cat/b.jpg", "tagged/dog", "images/train/b.jpg", "images/dog"])
def test_links_that_lead_nowhere_are_faults(tmp_path, place, to):
    for inner in ("tagged/cat", "images/train"):
        (tmp_path / inner).mkdir(parents=True)
        (tmp_path / inner / "a.jpg").touch()
    (tmp_path / "classes.txt").write_text("cat\n")
    link = tmp_path / place
    link.symlink_to(link if to == "itself" else tmp_path / "nowhere")
    faults = list_class_folders(tmp_path / "tagged").faults
    faults += list_folder(tmp_path, "train", masks=False, tags=False).faults
    expected = [] if place == "images/dog" else [f"{link} is a link that leads nowhere"]
    assert [fault.what for fault in faults] == expected
    assert any(
        "no split" in str(f) or "does not exist" in f.what
        for f in list_folder(tmp_path, "val", masks=False, tags=False).faults
    )
