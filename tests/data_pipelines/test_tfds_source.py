"""The TFDS source on a data set that is prepared here, without TensorFlow."""

import io
import json
import os
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from data_pipelines.sources import SourceConfig, open_source
from data_pipelines.tfds_source import TfdsSource
from larvseg_jax.errors import DataError, UserError
from larvseg_jax.vocabulary import Vocabulary

NAMES = ("background", "cat", "dog")


def photo(i):
    return np.random.default_rng(i).integers(0, 256, (10 + i, 13, 3), dtype=np.uint8)


def mask(i):
    ids = np.random.default_rng(i).integers(0, 3, (10 + i, 13)).astype(np.uint16)
    ids[1] = 65535
    return ids


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


class Tiny(tfds.core.GeneratorBasedBuilder):
    """Five photos with masks and tags, two of them in the split `odd`, whose values are wrong."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                "id": tfds.features.Text(),
                "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                "mask": tfds.features.Image(shape=(None, None, 1), dtype=np.uint16, encoding_format="png"),
                "tags": tfds.features.Sequence(tfds.features.ClassLabel(names=NAMES)),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        odd = [mask(3)[:5], np.full_like(mask(4), 3)]
        return {"train": self._examples(range(3)), "odd": self._examples((3, 4), odd)}

    def _examples(self, numbers, masks=None):
        for n, i in enumerate(numbers):
            ids = mask(i) if masks is None else masks[n]
            yield f"p{i}", {"id": f"p{i}", "image": png(photo(i)), "mask": png(ids), "tags": [2, 1][: i + 1]}

    def _generate_examples(self):
        """Abstract in TFDS; the splits call `_examples` themselves."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    Tiny(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


def opened(root, split="train", classes=(), masks=True, tags=True, directory="tiny/1.0.0"):
    where = SourceConfig(tfds=directory, folder="", class_folders="", split=split)
    label_set = Vocabulary(("zebra", *NAMES), (), ()).label_set(classes)
    if masks and tags:  # a stream reads one of the two
        return TfdsSource(where.location(root), split, label_set, masks=True, tags=True)
    return open_source(where, root, label_set, "masks" if masks else "tags")


def by_id(source):
    return {example["id"]: example for example in (source[i] for i in range(len(source)))}


def test_reads_photos_masks_and_tags(root):
    examples = by_id(opened(root))
    assert sorted(examples) == ["p0", "p1", "p2"]
    for i in range(3):
        example = examples[f"p{i}"]
        np.testing.assert_array_equal(example["image"], photo(i))
        np.testing.assert_array_equal(example["label"], np.where(mask(i) == 65535, -1, mask(i).astype(int) + 1))
        assert example["tags"].tolist() == [[3], [2, 3], [2, 3]][i]


def test_labels_are_columns_of_the_stream(root):
    example = by_id(opened(root, classes=("dog", "zebra")))["p1"]
    np.testing.assert_array_equal(example["label"], np.where(mask(1) == 2, 0, -1))
    assert example["tags"].tolist() == [0]


def test_reads_only_what_is_asked_for(root):
    assert set(opened(root, masks=False)[0]) == {"id", "image", "tags"}
    assert set(opened(root, tags=False)[0]) == {"id", "image", "label"}
    assert len(opened(root, split="train[:2]")) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(directory="tiny"), r"tiny is no prepared TFDS data set .*--config\.data_root=.* LARVSEG_DATA"),
        (
            dict(split="test"),
            r"tiny/1\.0\.0, split 'test': cannot be opened .* it has the splits odd, train in format array",
        ),
        (
            dict(classes=("zebra",)),
            r"features\.json: none of its 3 classes .* is among the stream's 1 \(zebra",
        ),
        (dict(split="train[:0]"), r"split 'train\[:0\]': cannot be opened"),
    ],
)
def test_mistakes_on_opening_are_named(root, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        opened(root, **changes)
    assert "\n" not in str(caught.value)


def test_missing_feature_is_named(root, tmp_path):
    shutil.copytree(root / "tiny", tmp_path / "tiny")
    file = tmp_path / "tiny" / "1.0.0" / "features.json"
    features = json.loads(file.read_text())
    del features["featuresDict"]["features"]["mask"]
    file.write_text(json.dumps(features))
    with pytest.raises(UserError, match="no feature 'mask', only id, image, tags: prepare it anew"):
        opened(tmp_path)
    assert len(opened(tmp_path, masks=False)) == 3


def test_mistakes_in_records_are_named(root):
    source = opened(root, split="odd")
    messages = []
    for i in range(2):
        with pytest.raises(UserError) as caught:
            source[i]
        messages.append(str(caught.value))
    wrong_size, wrong_value = sorted(messages, key=lambda m: "value" in m)
    assert "tiny/1.0.0, split 'odd', photo 'p3': mask of 13x5 pixels for a photo of 13x13" in wrong_size
    assert "photo 'p4': value 3 at row 0, column 0 is not among the classes 0..2" in wrong_value


def test_damaged_record_is_named(root, tmp_path):
    shutil.copytree(root / "tiny", tmp_path / "tiny")
    shard = next((tmp_path / "tiny" / "1.0.0").glob("*train*array_record*"))
    data = bytearray(shard.read_bytes())
    at = bytes(data).index(png(photo(1))[200:220])
    data[at] ^= 255
    shard.write_bytes(bytes(data))
    source = opened(tmp_path)
    failed = 0
    for i in range(3):
        try:
            source[i]
        except UserError as error:
            failed += 1
            assert "split 'train', record" in str(error)  # noqa: PT017 - which record fails is not known before
            assert "\n" not in str(error)  # noqa: PT017
    assert failed == 1


@pytest.mark.parametrize("length", [None, 0, 0.5], ids=["removed", "empty", "cut in half"])
@pytest.mark.parametrize("read_before", [False, True])
def test_a_shard_that_is_removed_or_cut_short_is_named(root, tmp_path, length, read_before):
    """One that is open already may still be read to its end; what cannot be read is a fault of the data."""
    shutil.copytree(root / "tiny", tmp_path / "tiny")
    source = opened(tmp_path)
    before = source[1] if read_before else None
    (shard,) = (tmp_path / "tiny" / "1.0.0").glob("*-train.array_record*")
    if length is None:
        shard.unlink()
    else:
        os.truncate(shard, int(length * shard.stat().st_size))
    if before is not None and length != 0:
        assert source[1]["id"] == before["id"]
        return
    with pytest.raises(DataError) as caught:
        source[1]
    assert str(caught.value).startswith(f"{tmp_path}/tiny/1.0.0, split 'train', record 1: cannot be read (")
    assert str(caught.value).endswith("): prepare the data set anew")
    assert "NoneType" not in str(caught.value)
    assert "\n" not in str(caught.value)
