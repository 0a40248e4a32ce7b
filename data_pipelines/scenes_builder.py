"""The generated scenes as a TFDS data set: `python -m data_pipelines.scenes_builder --data_dir=DIR`.

Each part (see data_pipelines/scenes.py) is a builder config of its own, because not every part has masks:

    DIR/scenes/train_masks/1.0.0     split "train"
    DIR/scenes/train_tags/1.0.0      split "train"
    DIR/scenes/train_objects/1.0.0   split "train"
    DIR/scenes/val/1.0.0             split "val"

ArrayRecord files with encoded PNGs: neither writing nor reading them needs TensorFlow. Decode the bytes
yourself (`SkipDecoding`): the decoder of TFDS depends on which picture libraries are installed.
"""

import argparse
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8, UInt16
from PIL import Image

from data_pipelines import scenes
from larvseg_jax.errors import UserError

VERSION = "1.0.0"
"""Changes whenever a pixel changes: a prepared data set is never drawn again."""


def split_of(part: str) -> str:
    """Name of the only split of a part."""
    return "val" if part == "val" else "train"


class Scenes(tfds.core.GeneratorBasedBuilder):
    """TFDS builder, one config per part; features id, image, tags and, where there are masks, mask."""

    VERSION = tfds.core.Version(VERSION)
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=part) for part in scenes.SIZES]

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "tags": tfds.features.Sequence(tfds.features.ClassLabel(names=scenes.CLASSES)),
        }
        if self.builder_config.name in scenes.MASKED:
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
        for index in range(scenes.SIZES[part]):
            picture = scenes.render(part, index)
            example = {"id": picture.id, "image": _png(picture.image), "tags": list(picture.tags)}
            if picture.mask is not None:
                example["mask"] = _png(picture.mask)
            yield index, example


def _png(pixels: UInt8[np.ndarray, "h w 3"] | UInt16[np.ndarray, "h w"]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def prepare(data_dir: str | Path) -> Path:
    """Draws the parts that `data_dir` does not hold yet and returns the data set's folder.

    An interrupted run leaves no half part behind: TFDS renames a part's folder when it is complete.
    Raises UserError where the folder cannot be written.
    """
    folder = Path(data_dir).expanduser() / "scenes"
    for part in scenes.SIZES:
        where = folder / part / VERSION
        if (where / "dataset_info.json").exists():
            print(f"{where} is prepared already")
            continue
        try:
            builder = Scenes(data_dir=str(folder.parent), config=part, file_format="array_record")
            builder.download_and_prepare()
        except OSError as error:
            raise UserError(f"cannot write {where} ({error}): choose another --data_dir") from error
        print(f"{where}: {scenes.SIZES[part]} pictures")
    return folder


def main() -> None:
    """Command line: --data_dir, by default the environment variable LARVSEG_DATA or this folder."""
    parser = argparse.ArgumentParser(description="Draws the generated scenes as a TFDS data set.")
    parser.add_argument("--data_dir", default=os.environ.get("LARVSEG_DATA", "."), metavar="DIR")
    try:
        prepare(parser.parse_args().data_dir)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
