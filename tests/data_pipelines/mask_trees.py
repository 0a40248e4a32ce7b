"""Small copies of the downloads the builders of mask data sets read: same folders, file names and encodings."""

import dataclasses
import io

import numpy as np
import scipy.io
import tensorflow_datasets as tfds
from PIL import Image

from data_pipelines.builders.preparation import prepare
from data_pipelines.tfds_source import TfdsSource
from larvseg_jax.vocabulary import Vocabulary
from larvseg_jax.vocabulary.class_lists import class_list

HEIGHT, STRIPE = 6, 3  # a picture is a row of stripes, one for each value


def jpeg(width, height=HEIGHT, seed=0, **options):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **options)
    return file.getvalue()


def png_photo(width, seed=0):
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def stripes(values, dtype):
    return np.tile(np.repeat(np.array(values, dtype), STRIPE), (HEIGHT, 1))


def grey(values):
    """8-bit grey PNG: COCO-Stuff, ADE20K, Cityscapes."""
    return saved(Image.fromarray(stripes(values, np.uint8)), "PNG")


def palette(values):
    """Palette PNG as in PASCAL VOC: the index is the class, the colours are for people."""
    picture = Image.fromarray(stripes(values, np.uint8))
    picture.putpalette([(7 * i + 3) % 256 for i in range(768)])
    assert picture.mode == "P"
    return saved(picture, "PNG")


def tiff(values):
    """16-bit TIFF: ADE20K-Full, PASCAL-Context 459."""
    return saved(Image.fromarray(stripes(values, np.uint16)), "TIFF")


def object_ids(values):
    """*_seg.png of ADE20K: red = 10 * (id // 256), green = id % 256, blue = the instance."""
    ids = stripes(values, np.int32)
    instances = np.arange(ids.size).reshape(ids.shape) % 251
    return saved(Image.fromarray(np.stack([ids // 256 * 10, ids % 256, instances], -1).astype(np.uint8)), "PNG")


def mat(values):
    """MAT-file of PASCAL-Context."""
    file = io.BytesIO()
    scipy.io.savemat(file, {"LabelMap": stripes(values, np.uint16)}, do_compression=True)
    return file.getvalue()


def saved(picture, kind):
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def write(root, files):
    """Files (relative name -> bytes or text) below root."""
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


@dataclasses.dataclass(frozen=True)
class Record:
    """A prepared photo: its bytes, the class name of every stripe (None = ignored), the names of its tags."""

    image: bytes
    stripes: list
    tags: list


def prepared(builder, root, data_dir, split):
    """Prepares `root` and gives the records of a split by photo name, names looked up in the class list."""
    folder = prepare(builder, root, data_dir)
    names = class_list(builder.CLASS_LIST).ids
    assert folder == data_dir / builder.CLASS_LIST / "1.0.0"
    source = TfdsSource(folder, split, Vocabulary(names, (), ()).label_set(), masks=True, tags=True)
    raw = tfds.builder_from_directory(str(folder)).as_data_source(
        split, decoders={name: tfds.decode.SkipDecoding() for name in ("image", "mask")}
    )
    records = {}
    for i, stored in enumerate(raw):
        example = source[i]
        label = example["label"]
        assert label.shape == example["image"].shape[:2]
        assert (label == np.tile(np.repeat(label[0, ::STRIPE], STRIPE), (HEIGHT, 1))).all()
        shown = [None if column < 0 else names[column] for column in label[0, ::STRIPE]]
        records[example["id"]] = Record(stored["image"], shown, [names[column] for column in example["tags"]])
    return records
