"""What one opened page holds: its models and what they were taught there, the picture shown, clicks in pictures.

Knows neither Gradio nor HTML.
"""

from __future__ import annotations

import copy
import dataclasses
import re
import tempfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

from larvseg_jax.errors import UserError
from larvseg_jax.predict.segmenter import Result, Segmenter

_MOST_SESSIONS = 4  # that keep a picture at a time: one of 50 megapixels takes 0.25 GiB
_GROUPS = ("base", "novel")


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a picture may take: memory above the weights in bytes, and millions of pixels."""

    memory: int
    max_megapixels: int


class Session:
    """One opened page. A call that raises a UserError changes nothing.

    Attributes:
      results: name of a model -> what it found in the picture shown; empty before the first one.
      photo: path of the picture shown, "" before the first one.
      clicks: path of a picture -> pixels (x, y) that show the class to be taught.
      taught: names of the classes taught here.
    """

    def __init__(self, models: Mapping[str, Segmenter], limits: Limits, folder: Path) -> None:
        self._models, self._limits, self._folder = dict(models), limits, folder
        self.results: dict[str, Result] = {}
        self.photo = ""
        self.clicks: dict[str, list[tuple[float, float]]] = {}
        self.taught: list[str] = []

    @property
    def choices(self) -> list[tuple[str, str]]:
        """(what a list shows, name) of every class that one of the models knows: "dog (novel)", "dog"."""
        groups: dict[str, dict[str, None]] = {}
        for model in self._models.values():
            for name in model.classes:
                found = [group for group in _GROUPS if name in getattr(model, group)]
                groups.setdefault(name, {}).update(dict.fromkeys(found))
        return [(f"{name} ({'/'.join(found)})" if found else name, name) for name, found in groups.items()]

    def look(self, photo: str, chosen: Sequence[str], text: str) -> list[str]:
        """Segments a picture by every model into `results`; returns what is to be known of it, a line each.

        Args:
          photo: path of the picture; "": there is none any more.
          chosen: names of classes that compete, each in the models that know it; with neither these nor `text` all do.
          text: more of them, as `--classes` takes them, but for files.

        Raises:
          UserError: the picture cannot be read or is too large, or the classes are not right.
        """
        if not photo:
            self.results, self.photo = {}, ""
            return []
        self._check_no_file(text)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = {name: self._found(name, photo, chosen, text.strip()) for name in self._models}
        self.results, self.photo = found, photo
        remarks = [_short(str(warning.message), photo) for warning in said if photo in str(warning.message)]
        return list(dict.fromkeys(remarks))

    def _found(self, name: str, photo: str, chosen: Sequence[str], text: str) -> Result:
        model = self._models[name]
        known = [label for label in chosen if label in model.classes]
        try:
            if chosen and not known and not text:
                raise UserError("none of the chosen classes is known: choose others")
            texts = [*known, *([text] if text else [])] or None
            found = model(photo, texts, memory=self._limits.memory, max_megapixels=self._limits.max_megapixels)
        except UserError as error:
            raise self._of_model(name, error, photo) from error
        return dataclasses.replace(found, top_labels=None, scores=None)  # 8 bytes a pixel that nothing here shows

    def _of_model(self, name: str, error: UserError, photo: str = "") -> UserError:
        """The error, which says of which model it is where there are several."""
        return UserError(f"{name}: {_short(str(error), photo)}" if len(self._models) > 1 else _short(str(error), photo))

    def _check_no_file(self, text: str) -> None:
        """UserError for a text that means a file: a page shows nobody what lies on the disk."""
        known = {name for model in self._models.values() for name in model.classes}
        for part in (text.strip(), *map(str.strip, text.split(","))):
            if part not in known and (part.startswith("@") or (re.search(r"[./\\]", part) and _is_file(part))):
                raise UserError(f"{part} is a file, and the page reads none: write the names of the classes")

    def click(self, photo: str, x: float, y: float) -> None:
        """Takes a pixel of the picture for the class to be taught, brought into it if it lies on its border.

        Args:
          photo: `token` of the picture that was clicked at; of another one than that shown the click is forgotten.
          x, y: in pixels from the upper left corner, as the picture is shown.
        """
        if not self.results or photo != self.token:
            return
        height, width = next(iter(self.results.values())).size
        point = min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
        self.clicks.setdefault(self.photo, []).append(point)

    @property
    def token(self) -> str:
        """What stands for the picture shown in the page: the folder and name that it was uploaded to."""
        return "/".join(Path(self.photo).parts[-2:])

    def teach(self, name: str) -> None:
        """Teaches all models the class that was clicked at; UserError as `Segmenter.teach`, or if there is no click."""
        name = name.strip()
        if not self.clicks:
            raise UserError("nothing is marked: click on the thing in the picture first")
        models = {}
        for model_name, model in self._models.items():
            models[model_name] = copy.copy(model)  # `teach` gives the copy other weights, and leaves the model as it is
            try:
                models[model_name].teach(name, list(self.clicks), points=list(self.clicks.values()))
            except UserError as error:
                photo = next((path for path in self.clicks if path in str(error)), "")
                raise self._of_model(model_name, error, photo) from error
        self._models, self.clicks = models, {}
        self.taught.append(name)

    def remove(self, name: str) -> None:
        """Forgets a class that was taught here; UserError if there is none of that name."""
        if name not in self.taught:
            raise UserError("no taught class is chosen: choose the one to be removed")
        models = {model_name: copy.copy(model) for model_name, model in self._models.items()}
        for model in models.values():
            model.remove(name)
        self._models = models
        self.taught.remove(name)

    def archive(self, formats: Sequence[str]) -> Path:
        """Writes what `Result.save` writes into one zip, with a folder for each model if there are several.

        Raises:
          UserError: no picture was segmented yet.
        """
        if not self.results:
            raise UserError("there is nothing to save yet: give a picture first")
        self._folder.mkdir(parents=True, exist_ok=True)
        for earlier in self._folder.glob("*.zip"):
            earlier.unlink()
        to = self._folder / f"{Path(self.photo).stem}.zip"
        with tempfile.TemporaryDirectory(dir=self._folder) as made, zipfile.ZipFile(to, "w") as archive:
            for name, result in self.results.items():
                part = Path(made) / (re.sub(r"[^\w.-]", "_", name) if len(self.results) > 1 else "")
                part.mkdir(exist_ok=True)
                for file in result.save(part, formats=formats):
                    how = zipfile.ZIP_STORED if file.suffix == ".png" else zipfile.ZIP_DEFLATED
                    archive.write(file, file.relative_to(made), compress_type=how)
        return to


class Sessions:
    """The pages that are open; of too many the one that was used longest ago begins anew.

    Args:
      models: name -> model; what is taught on a page stays there.
      limits: of a picture.
      folder: for files.
    """

    def __init__(self, models: Mapping[str, Segmenter], limits: Limits, folder: Path) -> None:
        self._models, self._limits, self._folder = models, limits, folder
        self._open: OrderedDict[str, Session] = OrderedDict()

    def of(self, key: str) -> Session:
        """The session of a page, a new one if it has none."""
        if key not in self._open:
            folder = Path(tempfile.mkdtemp(prefix="session-", dir=self._folder))
            self._open[key] = Session(self._models, self._limits, folder)
        self._open.move_to_end(key)
        while len(self._open) > _MOST_SESSIONS:
            self._open.popitem(last=False)
        return self._open[key]

    def end(self, key: str) -> None:
        """Forgets a page that was closed."""
        self._open.pop(key, None)


def _short(text: str, photo: str) -> str:
    """A text that names the picture as its user does, without the folder it was uploaded to."""
    return text.replace(photo, Path(photo).name) if photo else text


def _is_file(text: str) -> bool:
    try:
        return Path(text).expanduser().is_file()
    except (OSError, RuntimeError, ValueError):  # too long, ~ of nobody, a zero byte
        return False
