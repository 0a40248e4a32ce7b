"""The builder of a data set that the user has downloaded: what all data sets share.

Its subclasses say how the photos of one download lie on disk. `data_pipelines.prepare` writes them in parallel;
TFDS's own `download_and_prepare` (with `manual_dir` and file format array_record) writes the same records.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeAlias, TypeVar

import numpy as np
import tensorflow_datasets as tfds

from data_pipelines.builders.records import Photo, Tally, Unreadable, example
from data_pipelines.picture_files import MAX_MEGAPIXELS
from larvseg_jax.vocabulary.class_lists import class_list

T = TypeVar("T")

Piece: TypeAlias = Any
"""A unit of work that becomes one shard: small, picklable, says all `photos` needs (root, split, names), and its
repr() differs from that of any other (a tuple of strings, a frozen dataclass of paths)."""


def each(read: Callable[[T], Photo], items: Iterable[T]) -> Iterator[Photo | Unreadable]:
    """read(item) of every item, or the Unreadable that it raises: the usual body of `photos`."""
    for item in items:
        try:
            yield read(item)
        except Unreadable as unreadable:
            yield unreadable


def read_file(path: Path) -> bytes:
    """The bytes of a file; Unreadable if there is none or it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unreadable(path, error.strerror or error) from error


def in_pieces(items: Sequence[T], size: int = 1000) -> list[Sequence[T]]:
    """`items` in order, cut into runs of `size` (the last may be shorter)."""
    return [items[i : i + size] for i in range(0, len(items), size)]


class DownloadBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """TFDS builder of a data set that the user has downloaded.

    Subclasses give the class attributes and `layout`, `pieces` and `photos`. The data set's TFDS name is
    CLASS_LIST. Records stand in the order of the pieces and, in each, of its photos.
    """

    VERSION = tfds.core.Version("1.0.0")
    CLASS_LIST: ClassVar[str] = ""
    """Key of the class list; class ids are places in it. Sets without classes have a `name` instead."""
    MASKS: ClassVar[bool] = True
    """Whether the photos come with masks."""
    EXPECTED: ClassVar[Mapping[str, int]]
    """Published number of photos of each split."""
    max_megapixels: int = MAX_MEGAPIXELS
    """The largest photo or mask that is taken, millions of pixels."""
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Download the data set from its authors; manual_dir is the folder that holds it."

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if cls.__dict__.get("CLASS_LIST"):
            cls.name = cls.CLASS_LIST
        super().__init_subclass__(**{"skip_registration": True, **kwargs})

    @classmethod
    def writing(cls, data_dir: Path, max_megapixels: int) -> DownloadBuilder:
        """The builder that writes ArrayRecord into `data_dir`, of photos up to so many million pixels."""
        builder = cls(data_dir=str(data_dir), file_format="array_record")
        builder.max_megapixels = max_megapixels
        return builder

    @abc.abstractmethod
    def layout(self, root: Path) -> str:
        """Which of the known layouts the folder has, in a few words; UserError naming what was looked for."""

    @abc.abstractmethod
    def pieces(self, root: Path) -> dict[str, Sequence[Piece]]:
        """Split -> units of work in a fixed order. Each becomes one shard (a few hundred megabytes at most)."""

    @abc.abstractmethod
    def photos(self, piece: Piece) -> Iterator[Photo | Unreadable]:
        """The photos of a piece in a fixed order. Runs in a worker process.

        What cannot be read is yielded as Unreadable (see `each`). UserError stops the preparation.
        """

    def facts(self, root: Path) -> dict[str, Any]:
        """More for metadata.json: what was found in the folder, such as the release."""
        return {}

    def remarks(self, root: Path) -> list[str]:
        """What the user should know of the folder before the work begins, a line each."""
        return []

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            **self._labels(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _labels(self) -> dict[str, Any]:
        """The features of what a photo has besides."""
        names = class_list(self.CLASS_LIST).stored
        features: dict[str, Any] = {"tags": tfds.features.Sequence(tfds.features.ClassLabel(names=names))}
        if self.MASKS:
            features["mask"] = tfds.features.Image(shape=(None, None, 1), dtype=np.uint16, encoding_format="png")
        return features

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, dict]]]:
        root = Path(dl_manager.manual_dir)
        self.info.metadata.update(self.metadata(root, {}))
        return {split: self._generate_examples(split, pieces) for split, pieces in self.pieces(root).items()}

    def _generate_examples(self, split: str, pieces: Sequence[Piece]) -> Iterator[tuple[int, dict[str, Any]]]:
        tally = Tally()
        for piece in pieces:
            for record in self.records(piece, tally):
                yield tally.photos, record
        self.info.metadata["photos_per_class"][split] = tally.photos_per_class(self.class_count)
        self.info.metadata["unreadable"][split] = tally.unreadable

    @property
    def class_count(self) -> int:
        """How many classes the prepared data has."""
        return len(class_list(self.CLASS_LIST).stored)

    def records(self, piece: Piece, tally: Tally) -> Iterator[dict[str, Any]]:
        """The photos of a piece as TFDS examples; what was seen is added to `tally`.

        Raises UserError for a mask or tag that does not fit.
        """
        for photo in self.photos(piece):
            try:
                if isinstance(photo, Unreadable):
                    raise photo
                record = example(photo, self.class_count, self.max_megapixels)
            except Unreadable as unreadable:
                tally.leave_out(unreadable)
            else:
                tally.count(record.get("tags", ()))
                yield record

    def metadata(self, root: Path, tallies: Mapping[str, Tally]) -> dict[str, Any]:
        """What metadata.json says of the data set in `root`, given what was seen in each split."""
        return {
            **({"class_list": self.CLASS_LIST} if self.CLASS_LIST else {}),
            "layout": self.layout(root),
            "expected": dict(self.EXPECTED),
            "photos_per_class": {split: t.photos_per_class(self.class_count) for split, t in tallies.items()},
            "unreadable": {split: t.unreadable for split, t in tallies.items()},
            **self.facts(root),
        }
