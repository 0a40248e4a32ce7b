"""Labels photos with classes that nobody has named in them: writes a list of tags, and the scores beside it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree
from rich.table import Table

from data_pipelines.picture_files import MAX_MEGAPIXELS
from larvseg_jax.console import console, printable, stage, track
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.disk import write_text
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.photos import Photo, photo_values
from larvseg_jax.evaluation.windows import Windows
from larvseg_jax.methods.crops import Fill
from larvseg_jax.pseudo_labels.labeller import Labeller
from larvseg_jax.pseudo_labels.photos import Looked, Unlabelled, of_folder, of_stream
from larvseg_jax.pseudo_labels.pieces import Pieces, Scores
from larvseg_jax.trained import Trained, load_trained
from larvseg_jax.training.lock import locked
from larvseg_jax.weights.digest import digest


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
      run, step: the proposals' model.
      clip, clip_step: the image-text model.
      names: the classes; (): the novel ones of the run.
      out: the list of tags, tags.json; the scores are in a folder beside it, tags_scores.
      threshold: a class is a label of a photo if its score is above this.
      stream: of the run, whose photos are labelled; "": its first.
      images: a folder of pictures instead.
      data_root: where the stream's data is, if not where it was in training.
      limit: only the first so many photos; 0: all.
      fill: what crops show outside the mask (methods/crops.py).
      templates: see `Labeller`.
    """

    run: Path
    clip: Path
    out: Path
    names: tuple[str, ...] = ()
    threshold: float = 0.99
    step: int | None = None
    clip_step: int | None = None
    stream: str = ""
    images: Path | None = None
    data_root: str | None = None
    limit: int = 0
    fill: Fill = "none"
    templates: str = ""


def label_photos(request: Request) -> Scores:
    """Writes the tags and their scores, and prints how many there are, how many right where masks say so.

    Goes on with the photos that are missing. Another threshold needs no model to look again.

    Raises:
      UserError: a model or the data is not right, or the folder beside `out` holds other scores.
    """
    mesh = make_mesh(data=-1, model=1)
    with stage("models"):
        proposer = load_trained(request.run, request.step, memory=True, mesh=mesh)
        names = request.names or proposer.vocabulary.novel
        if len(names) < 2:
            raise UserError(f"{len(names)} classes are asked for, which compete with each other: name more, --classes")
        reader = load_trained(request.clip, request.clip_step, mesh=mesh, classes=names)
        labeller = Labeller(proposer, reader, names, request.fill, request.templates)
    photos = _photos(request, proposer, names)
    total = min(request.limit or len(photos), len(photos))
    folder = request.out.with_name(f"{request.out.stem}_scores")
    with locked(folder):
        pieces = Pieces(folder, _about(request, proposer, reader, names, photos), total)
        windows, missing = proposer.windows, pieces.missing
        numbers = [number for of_piece in missing.values() for number in of_piece]
        console.print(f"{photos.where}: {total:,} photos, {total - len(numbers):,} of them scored before")
        found = track(_scored(photos, numbers, windows, labeller, len(names)), len(numbers), "photos")
        for path, of_piece in missing.items():
            pieces.write(path, _stacked([next(found) for _ in of_piece]))
        next(found, None)  # lets the bar end
        scores = pieces.read()
        tags = _tags(scores, names, request.threshold, empty=request.images is None)
        write_text(request.out, json.dumps(tags, indent=0, ensure_ascii=False))
    labelled = scores.scores > request.threshold
    console.print(label_table(scores, labelled, names, masked=photos.masked))
    console.print(
        f"{request.out}: {labelled.any(1).sum():,} of {total:,} photos have labels, {labelled.sum():,} in all"
    )
    return scores


def _photos(request: Request, proposer: Trained, names: tuple[str, ...]) -> Unlabelled:
    if request.images is not None:
        return of_folder(request.images, names, MAX_MEGAPIXELS)
    return of_stream(proposer.experiment(None, request.data_root), request.stream, names)


def _about(
    request: Request, proposer: Trained, reader: Trained, names: tuple[str, ...], photos: Unlabelled
) -> dict[str, Any]:
    """What the scores depend on."""
    return {
        "classes": names,
        "photos of": photos.where,
        "proposals": {"of": str(request.run), "step": proposer.step, "weights": _digest(proposer.params)},
        "clip": {"of": str(request.clip), "step": reader.step, "weights": _digest(reader.params)},
        "windows": dataclasses.asdict(proposer.windows),
        "fill": request.fill,
        "templates": request.templates,
    }


def _digest(params: PyTree) -> str:
    values = np.array(jax.tree.leaves(jax.device_get(digest(params))), np.uint32)
    return hashlib.sha256(values.tobytes()).hexdigest()[:16]


def _scored(
    photos: Unlabelled, numbers: list[int], windows: Windows, labeller: Labeller, classes: int
) -> Iterator[tuple[Looked, np.ndarray]]:
    """The photos in order with their scores: the highest of their windows; zeros where there is nothing to look for."""
    waiting: list[Looked] = []

    def open_ones() -> Iterator[Photo]:
        for looked in photos.looked_at(numbers, windows):
            waiting.append(looked)
            if looked.open:
                yield _with_content(looked.photo, windows)

    for photo, values in photo_values(labeller, open_ones(), labeller.size):
        while waiting[0].photo.index != photo.index:
            yield waiting.pop(0), np.zeros(classes, np.float32)
        yield waiting.pop(0), np.asarray(values).max(0)
    yield from ((looked, np.zeros(classes, np.float32)) for looked in waiting)


def _with_content(photo: Photo, windows: Windows) -> Photo:
    """Its windows with how much of each shows the photo, which begins in their corner."""
    content = np.minimum(photo.test_size, windows.window).astype(np.int32)
    return dataclasses.replace(photo, windows=[{"pixels": window, "content": content} for window in photo.windows])


def _stacked(found: list[tuple[Looked, np.ndarray]]) -> Scores:
    looked = [of for of, _ in found]
    return Scores(
        np.array([of.photo.id for of in looked]),
        np.stack([scores for _, scores in found]).astype(np.float32),
        np.stack([of.truth for of in looked]),
        np.array([of.open for of in looked]),
    )


def _tags(scores: Scores, names: tuple[str, ...], threshold: float, *, empty: bool) -> Mapping[str, list[str]]:
    """Photo -> its labels; `empty`: also those that have none."""
    labelled = scores.scores > threshold
    found = {
        str(photo): [name for name, is_label in zip(names, row, strict=True) if is_label]
        for photo, row in zip(scores.ids, labelled, strict=True)
    }
    return found if empty else {photo: tags for photo, tags in found.items() if tags}


def label_table(scores: Scores, labelled: np.ndarray, names: tuple[str, ...], *, masked: bool) -> Table:
    """How many photos have each label; with masks, how many of these labels are right and of the right ones found."""
    columns = ("labels", "right %", "photos that show it", "found %") if masked else ("labels",)
    table = Table("class", *columns, title="pseudo labels")
    rows = [(printable(name), labelled[:, i], scores.truth[:, i]) for i, name in enumerate(names)]
    for name, given, true in [*rows, ("all", labelled, scores.truth)]:
        right = [f"{given.sum():,}"]
        if masked:
            both = (given & true).sum()
            right += [_percent(both, given.sum()), f"{true.sum():,}", _percent(both, true.sum())]
        table.add_row(name, *right)
    return table


def _percent(part: Any, whole: Any) -> str:
    return f"{100 * part / whole:.1f}" if whole else "-"
