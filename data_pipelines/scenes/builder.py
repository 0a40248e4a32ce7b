"""The generated scenes as a TFDS data set.

Each part (see data_pipelines/scenes/__init__.py) is a builder config of its own, because not every part has masks:

    DIR/scenes/train_masks/2.0.0     split "train"
    DIR/scenes/train_tags/2.0.0      split "train"
    DIR/scenes/train_objects/2.0.0   split "train"
    DIR/scenes/val/2.0.0             split "val"

and once more where novel classes are found on one ground only: DIR/scenes/train_masks_one_ground/2.0.0, ...

ArrayRecord files with encoded PNGs: neither writing nor reading them needs TensorFlow. Decode the bytes
yourself (`SkipDecoding`): the decoder of TFDS depends on which picture libraries are installed.
"""

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8, UInt16
from PIL import Image

from data_pipelines import scenes
from data_pipelines.scenes import CLASSES, pictures
from data_pipelines.scenes.classes import HABITATS, Grounds
from data_pipelines.scenes.pictures import VERSION, config_of
from larvseg_jax.errors import UserError


def split_of(part: str) -> str:
    """Name of the only split of a part."""
    return "val" if part == "val" else "train"


@dataclasses.dataclass(eq=False, kw_only=True)
class _PartConfig(tfds.core.BuilderConfig):
    """A part of the data set, and on how many grounds its novel classes are found."""

    part: str
    grounds: Grounds


class Scenes(tfds.core.GeneratorBasedBuilder):
    """TFDS builder, one config per part; features id, image, tags and, where there are masks, mask."""

    VERSION = tfds.core.Version(VERSION)
    BUILDER_CONFIGS = [
        _PartConfig(name=config_of(part, grounds), part=part, grounds=grounds)
        for grounds in HABITATS
        for part in pictures.SIZES
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "tags": tfds.features.Sequence(tfds.features.ClassLabel(names=CLASSES)),
        }
        if self.builder_config.part in pictures.MASKED:
            features["mask"] = tfds.features.Image(shape=(None, None, 1), dtype=np.uint16, encoding_format="png")
        return tfds.core.DatasetInfo(
            builder=self,
            description=scenes.__doc__,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # example i is picture i
        )

    def _split_generators(self, dl_manager):
        part = self.builder_config.part
        return {split_of(part): self._generate_examples(part, self.builder_config.grounds)}

    def _generate_examples(self, part: str, grounds: Grounds) -> Iterator[tuple[int, dict]]:
        for index in range(pictures.SIZES[part]):
            picture = pictures.render(part, index, grounds)
            example = {"id": picture.id, "image": _png(picture.image), "tags": list(picture.tags)}
            if picture.mask is not None:
                example["mask"] = _png(picture.mask)
            yield index, example


def _png(pixels: UInt8[np.ndarray, "h w 3"] | UInt16[np.ndarray, "h w"]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def write_scenes(data_dir: str | Path, grounds: Grounds = "several") -> Path:
    """Draws the parts that `data_dir` does not hold yet and returns the data set's folder.

    An interrupted run leaves no half part behind: TFDS renames a part's folder when it is complete.
    Raises UserError where the folder cannot be written.
    """
    folder = Path(data_dir).expanduser() / "scenes"
    for part in pictures.SIZES:
        name = config_of(part, grounds)
        part_folder = folder / name / VERSION
        if (part_folder / "dataset_info.json").exists():
            print(f"{part_folder} is prepared already")
            continue
        try:
            builder = Scenes(data_dir=str(folder.parent), config=name, file_format="array_record")
            builder.download_and_prepare()
        except OSError as error:
            raise UserError(f"cannot write {part_folder} ({error}): choose another --data_root") from error
        print(f"{part_folder}: {pictures.SIZES[part]} pictures")
    return folder
