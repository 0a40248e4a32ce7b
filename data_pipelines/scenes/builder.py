"""The generated scenes as a TFDS data set.

Each part (see data_pipelines/scenes/__init__.py) is a builder config of its own, because not every part has masks:

    DIR/scenes/train_masks/1.0.0     split "train"
    DIR/scenes/train_tags/1.0.0      split "train"
    DIR/scenes/train_objects/1.0.0   split "train"
    DIR/scenes/val/1.0.0             split "val"

ArrayRecord files with encoded PNGs: neither writing nor reading them needs TensorFlow. Decode the bytes
yourself (`SkipDecoding`): the decoder of TFDS depends on which picture libraries are installed.
"""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8, UInt16
from PIL import Image

from data_pipelines import scenes
from data_pipelines.scenes import CLASSES, pictures
from larvseg_jax.errors import UserError

VERSION = "1.0.0"
"""Changes whenever a pixel changes: a prepared data set is never drawn again."""


def split_of(part: str) -> str:
    """Name of the only split of a part."""
    return "val" if part == "val" else "train"


class Scenes(tfds.core.GeneratorBasedBuilder):
    """TFDS builder, one config per part; features id, image, tags and, where there are masks, mask."""

    VERSION = tfds.core.Version(VERSION)
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=part) for part in pictures.SIZES]

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "tags": tfds.features.Sequence(tfds.features.ClassLabel(names=CLASSES)),
        }
        if self.builder_config.name in pictures.MASKED:
            features["mask"] = tfds.features.Image(shape=(None, None, 1), dtype=np.uint16, encoding_format="png")
        return tfds.core.DatasetInfo(
            builder=self,
            description=scenes.__doc__,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # example i is picture i
        )

    def _split_generators(self, dl_manager):
        part = self.builder_config.name
        return {split_of(part): self._generate_examples(part)}

    def _generate_examples(self, part: str) -> Iterator[tuple[int, dict]]:
        for index in range(pictures.SIZES[part]):
            picture = pictures.render(part, index)
            example = {"id": picture.id, "image": _png(picture.image), "tags": list(picture.tags)}
            if picture.mask is not None:
                example["mask"] = _png(picture.mask)
            yield index, example


def _png(pixels: UInt8[np.ndarray, "h w 3"] | UInt16[np.ndarray, "h w"]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def write_scenes(data_dir: str | Path) -> Path:
    """Draws the parts that `data_dir` does not hold yet and returns the data set's folder.

    An interrupted run leaves no half part behind: TFDS renames a part's folder when it is complete.
    Raises UserError where the folder cannot be written.
    """
    folder = Path(data_dir).expanduser() / "scenes"
    for part in pictures.SIZES:
        part_folder = folder / part / VERSION
        if (part_folder / "dataset_info.json").exists():
            print(f"{part_folder} is prepared already")
            continue
        try:
            builder = Scenes(data_dir=str(folder.parent), config=part, file_format="array_record")
            builder.download_and_prepare()
        except OSError as error:
            raise UserError(f"cannot write {part_folder} ({error}): choose another --data_root") from error
        print(f"{part_folder}: {pictures.SIZES[part]} pictures")
    return folder
