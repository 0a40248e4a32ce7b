"""A trained model for people: from a picture to what is in it (docs/predict.md).

model = Segmenter.load("runs/x")
result = model("photo.jpg", classes=["cat", "dog", "sofa"])
"""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from data_pipelines.picture_files import MAX_MEGAPIXELS
from larvseg_jax.console import printable
from larvseg_jax.errors import UserError
from larvseg_jax.export import write_model
from larvseg_jax.predict import exports, files
from larvseg_jax.predict.classes import choose_classes
from larvseg_jax.predict.drawing import overlay_page
from larvseg_jax.predict.names import targets
from larvseg_jax.predict.pictures import as_rgb
from larvseg_jax.predict.predictor import DEFAULT_MEMORY, Predictor
from larvseg_jax.predict.segmentation import Segmentation
from larvseg_jax.shipped.shipped import located
from larvseg_jax.teach.join import with_name, without_class
from larvseg_jax.teach.lesson import taught
from larvseg_jax.teach.request import Points, check_lists, names_of, pixels_shown
from larvseg_jax.trained import Trained, load_trained
from larvseg_jax.vocabulary import Vocabulary
from larvseg_jax.vocabulary.free_names import free_names
from larvseg_jax.weights.places import check_model
from larvseg_jax.weights.safetensors_file import SUFFIX

PHOTO_BYTES = 5
"""Memory of every pixel while a photo is searched: RGB, and the label map."""

_TOLD = 8  # classes that a text names
_HTML_SIDE = 800  # pixels


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Result(Segmentation):
    """What was found in a picture, and the picture; see `Segmentation`.

    Attributes:
      image: RGB.
      source: path of the file, "" if it was none.
      model: path of the model.
    """

    image: UInt8[np.ndarray, "H W 3"] = dataclasses.field(kw_only=True)
    source: str = dataclasses.field(default="", kw_only=True)
    model: str = dataclasses.field(default="", kw_only=True)

    def overlay(self, show: Sequence[str] | None = None) -> Image.Image:
        """The picture under its classes with names and legend; with `show` these classes alone, the rest grey."""
        chosen = None if show is None else choose_shown(show, self.names)
        return overlay_page(self.image, self, chosen)

    def save(self, path: str | Path, show: Sequence[str] | None = None, formats: Sequence[str] = ()) -> list[Path]:
        """Writes the files that `larvseg predict` writes; returns their paths.

        Args:
          path: a name ending in .png for the overlay, after which the others are named; or a folder.
          show: as for `overlay`.
          formats: "coco", "labelstudio", "polygons".

        Raises:
          UserError: a file is there that is of no prediction, or cannot be written.
        """
        target = targets([Path(self.source or "picture")], Path(path))[0]
        chosen = None if show is None else choose_shown(show, self.names)
        return files.write(target, self.source, self.image, self, self.model, show=chosen, formats=formats)

    def to_coco(self) -> dict[str, Any]:
        """A COCO data set of this picture; the masks are uncompressed run lengths."""
        return exports.coco(self, self.source)

    def to_label_studio(self) -> list[dict[str, Any]]:
        """A task for Label Studio with brush regions to be corrected."""
        return exports.label_studio(self, self.source)

    def to_polygons(self) -> dict[str, Any]:
        """Features as in GeoJSON, in pixels."""
        return exports.polygons(self, self.source)

    def __repr__(self) -> str:
        height, width = self.size
        shares = self.shares()
        told = [
            f"{printable(self.names[label])} {100 * share:.1f} %"
            + f" ({self.groups[label]})" * bool(self.groups[label])
            for label, share in shares[:_TOLD]
        ]
        more = [f"{len(shares) - _TOLD} more"] if len(shares) > _TOLD else []
        of = f"{len(shares)} of {len(self.names)} classes"
        return f"<{printable(self.source) or 'picture'}, {width} x {height} pixels, {of}: {', '.join(told + more)}>"

    def _repr_html_(self) -> str:
        """For notebooks."""
        picture = self.overlay()
        picture.thumbnail((_HTML_SIDE, _HTML_SIDE))
        png = io.BytesIO()
        picture.save(png, "PNG")
        shown = f'<img src="data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}">'
        return f"{shown}<p>{html.escape(repr(self)[1:-1])}</p>"


def choose_shown(show: Sequence[str], names: tuple[str, ...]) -> frozenset[str]:
    """The classes of `show`, which must be among the names that compete."""
    return frozenset(choose_classes([show] if isinstance(show, str) else show, Vocabulary(names), option="show"))


class Segmenter:
    """A trained model: called with a picture, it gives a `Result`. Compiled programs are kept on disk.

    Attributes:
      classes: names of all that it knows.
      base, novel: those learnt from masks, and from tags only.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._use(predictor)

    def _use(self, predictor: Predictor) -> None:
        self._predictor = predictor
        vocabulary = predictor.vocabulary
        self.classes, self.base, self.novel = vocabulary.classes, vocabulary.base, vocabulary.novel

    @classmethod
    def load(
        cls,
        model: str | Path,
        step: int | None = None,
        *,
        pretrained: str | Path | None = None,
        scale: tuple[int, int] | None = None,
        whole: bool = False,
        novel_offset: float | None = None,
        classes: Sequence[str] | None = None,
    ) -> Segmenter:
        """Reads a model; no data set is needed.

        Args:
          model: folder of a run or of a checkpoint, an exported .safetensors file, or the name of a model that comes
            with the program ("animals"), once `larvseg demo` has fetched its weights.
          step: which checkpoint of the run; the newest by default.
          pretrained: the weights that a file of `export --learnt` was learnt on.
          scale: (long, short) limits of the resized picture's sides, if not as in the evaluation.
          whole: the whole picture at once instead of sliding windows.
          novel_offset: added to the scores of novel classes, if not what the evaluation adds.
          classes: of a CLIP (docs/clip.md): any names, class lists or files of names; other models have their own.

        Raises:
          UserError: there is no such model, or it is damaged; a CLIP has no classes.
        """
        path, pretrained = located(model, None if pretrained is None else Path(pretrained).expanduser())
        check_model(path, step)
        texts = [classes] if isinstance(classes, str) else classes
        asked = None if texts is None else free_names(texts)
        trained = load_trained(path, step, pretrained=pretrained, classes=asked)
        predictor = Predictor(trained if novel_offset is None else trained.with_novel_offset(novel_offset))
        windows = dataclasses.replace(predictor.windows, scale=scale or predictor.windows.scale)
        predictor.windows = dataclasses.replace(windows, window=0) if whole else windows
        return cls(predictor)

    @property
    def trained(self) -> Trained:
        """Network, weights and vocabulary."""
        return self._predictor.trained

    @overload
    def __call__(
        self,
        picture: list[Any] | tuple[Any, ...],
        classes: Sequence[str] | None = None,
        *,
        exclude: Sequence[str] = (),
        top_k: int = 1,
        probabilities: bool = False,
        memory: int = DEFAULT_MEMORY,
        max_megapixels: int = MAX_MEGAPIXELS,
    ) -> list[Result]: ...

    @overload
    def __call__(
        self,
        picture: str | os.PathLike[str] | Image.Image | np.ndarray,
        classes: Sequence[str] | None = None,
        *,
        exclude: Sequence[str] = (),
        top_k: int = 1,
        probabilities: bool = False,
        memory: int = DEFAULT_MEMORY,
        max_megapixels: int = MAX_MEGAPIXELS,
    ) -> Result: ...

    def __call__(
        self,
        picture: Any,
        classes: Sequence[str] | None = None,
        *,
        exclude: Sequence[str] = (),
        top_k: int = 1,
        probabilities: bool = False,
        memory: int = DEFAULT_MEMORY,
        max_megapixels: int = MAX_MEGAPIXELS,
    ) -> Result | list[Result]:
        """What is in a picture, or in each of a list.

        Args:
          picture: path, PIL image, array (`pictures.as_rgb`), or a list of these.
          classes: those that compete, as `vocabulary.choice` takes them; None: all. Scores are relative to each other.
          exclude: of these, those that do not.
          top_k: how many classes of every pixel are kept.
          probabilities: softmax over all that compete, too; takes much longer with many.
          memory: bytes above the weights that may be in use at a time.
          max_megapixels: the largest file that is read, millions of pixels.

        Raises:
          UserError: a picture cannot be read, a class is unknown, the memory does not suffice.
        """
        trained = self.trained
        texts = [classes] if isinstance(classes, str) else classes
        without = [exclude] if isinstance(exclude, str) else exclude
        names = choose_classes(texts, trained.vocabulary, without, trained.class_lists)
        options: dict[str, Any] = dict(
            top_k=top_k, probabilities=probabilities, memory=memory, max_megapixels=max_megapixels
        )
        if isinstance(picture, (list, tuple)):
            return [self._one(one, names, **options) for one in picture]
        return self._one(picture, names, **options)

    def teach(
        self,
        name: str,
        photos: Sequence[Any],
        *,
        points: Sequence[Points] | None = None,
        masks: Sequence[Any] | None = None,
    ) -> None:
        """One more class, without training (docs/teach.md): it competes from now on, among the novel ones.

        The model itself changes; a lesson that fails changes nothing.

        Args:
          name: of the class.
          photos: a list of pictures that show it, each as for a prediction.
          points: for each photo a list of pixels (x, y) that show it, in the photo as it is shown (turned by EXIF).
          masks: for each photo a picture of class ids or an array, of its size, not zero where the class is. With
            neither, the photos are taken as tagged: what of them is no background (`teach.lesson.of_tagged`).

        Raises:
          UserError: the name is taken, or the photos, points or masks do not fit.
        """
        check_lists(photos, points, masks)
        now, images = self._predictor, [as_rgb(photo) for photo in photos]
        pixels = pixels_shown(names_of(photos), [(len(image), len(image[0])) for image in images], points, masks)
        self._use(Predictor(taught(now.trained, now.windows, name, images, pixels), now.windows))

    def rename(self, old: str, new: str) -> None:
        """Calls a class otherwise; UserError if there is none of the old name, or one of the new."""
        self._use(Predictor(with_name(self._predictor.trained, old, new), self._predictor.windows))

    def remove(self, name: str) -> None:
        """Forgets a class, taught or learnt; UserError if there is none of that name."""
        self._use(Predictor(without_class(self._predictor.trained, name), self._predictor.windows))

    def save(self, path: str | Path) -> None:
        """Writes the model and what it was taught to a .safetensors file that `load` reads; all weights, in float32."""
        file = Path(path).expanduser()
        if file.suffix != SUFFIX:
            raise UserError(f"{file} cannot be written: give a name that ends in {SUFFIX}")
        write_model(self.trained, file)

    def _one(
        self,
        picture: Any,
        names: tuple[str, ...],
        *,
        top_k: int,
        probabilities: bool,
        memory: int,
        max_megapixels: int,
    ) -> Result:
        image = as_rgb(picture, max_megapixels)
        source = os.fsdecode(picture) if isinstance(picture, (str, os.PathLike)) else ""
        size = image.shape[0], image.shape[1]
        if remark := self._predictor.remark(size):
            warnings.warn(f"{printable(source) or 'a picture'} {remark}", stacklevel=3)
        held = PHOTO_BYTES + 8 * top_k + 4 * top_k * probabilities
        left = memory - held * size[0] * size[1]
        strips = self._predictor.strips(image, names, top_k, probabilities=probabilities, memory=left)
        found = Segmentation.of(strips, size, self._predictor.vocabulary.groups(names), keep=True)
        parts = {field.name: getattr(found, field.name) for field in dataclasses.fields(Segmentation)}
        return Result(**parts, image=image, source=source, model=str(self._predictor.trained.source))
