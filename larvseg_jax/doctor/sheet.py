"""The contact sheet: photos with their masks and tags, and the crops the network will see, as one HTML file."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int32, Integer, UInt8

from data_pipelines.orientation import turned_mask
from data_pipelines.rows import extent_of
from data_pipelines.streams import HostBatch, step_batches
from data_pipelines.transforms import MEAN, STD
from larvseg_jax.config import Experiment
from larvseg_jax.disk import write_text
from larvseg_jax.doctor.class_counts import ClassCount
from larvseg_jax.doctor.class_counts import shown as shown_counts
from larvseg_jax.doctor.findings import Finding, Section
from larvseg_jax.doctor.photo_sets import PhotoSet
from larvseg_jax.doctor.scan import View, spread
from larvseg_jax.doctor.set_report import SetReport
from larvseg_jax.errors import UserError
from larvseg_jax.report import colours
from larvseg_jax.report.html import jpeg_url, png_url, templates
from larvseg_jax.vocabulary import IGNORE_LABEL, LabelSet

_PHOTOS = 4  # of each set; of tagged photos one of each class besides
_CLASSES = 120  # of which a photo is shown
_CROPS = 3  # of each stream
_TRIES = 16  # photos tried for these, as some may be broken
_SIDE = 240  # longest side of a picture, pixels
_STRIPE = 5  # width of the hatching, pixels
_GREY, _DARK, _WHITE, _BLACK = (np.array([v, v, v], np.uint8) for v in (150, 105, 255, 0))


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of a legend: pixels of `share` of the picture, drawn `plain`, `striped`, `ignored` or `wrong`."""

    name: str
    colour: tuple[int, int, int]
    style: str
    share: float


@dataclasses.dataclass(frozen=True)
class Card:
    """One photo or crop.

    Attributes:
      title: name of the photo.
      pictures: captions and data URLs.
      legend: what the mask shows, the largest first.
      tags: class names; None where tags play no part.
      remark: what else there is to say.
      captions: of the photo.
    """

    title: str
    pictures: tuple[tuple[str, str], ...]
    legend: tuple[Entry, ...] = ()
    tags: tuple[str, ...] | None = None
    remark: str = ""
    captions: tuple[str, ...] = ()


def sheet_section(run: Experiment, reports: Sequence[SetReport], counts: Sequence[ClassCount], path: Path) -> Section:
    """Writes the sheet; the section says where, or why there is none."""
    shown = [
        (
            report,
            _photo_cards(report, report.photos, report.view),
            _misfiled_cards(report, report.photos, report.view),
            _crop_cards(run, report),
        )
        for report in reports
        if report.photos is not None and report.view is not None
    ]
    if not any(photos for _, photos, _, _ in shown):
        return Section("contact sheet", (Finding("note", "sheet", "none: there is no photo to show"),))
    template = templates(Path(__file__).parent).get_template("sheet.html.j2")
    written = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    page = template.render(
        title=run.name, sets=shown, written=written, counts=shown_counts(counts), of=[r.where for r in reports]
    )
    write_text(path, page, "give another --out")
    text = f"{path.absolute()}: look for classes in the wrong place (shifted ids, 0 and 255 swapped)"
    return Section("contact sheet", (Finding("ok", "sheet", text),), {"path": str(path.absolute())})


def colours_of_ids(view: View, names: Sequence[str], label_set: LabelSet) -> UInt8[np.ndarray, "classes 3"]:
    """Colour of every class id of the data set, whose `names` stand in where the stream does not know it."""
    columns = view.columns.tolist()
    return colours.class_colours(
        [name if c == IGNORE_LABEL else label_set.names[c] for c, name in zip(columns, names, strict=True)]
    )


def paint_mask(
    mask: Integer[np.ndarray, "h w"], photos: PhotoSet, view: View, palette: UInt8[np.ndarray, "classes 3"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Class ids in colour; hatched in white what the stream does not know, in grey what is unlabelled, black else."""
    is_class = (mask >= 0) & (mask < len(palette))
    ids = np.where(is_class, mask, 0).astype(np.int64)
    painted = np.where(is_class[..., None], palette[ids], _BLACK)
    if photos.ignore is not None:
        painted[(mask == photos.ignore) & ~is_class] = _GREY
        painted[(mask == photos.ignore) & ~is_class & _stripes(mask.shape)] = _DARK
    painted[is_class & (view.columns[ids] == IGNORE_LABEL) & _stripes(mask.shape)] = _WHITE
    return painted


def _stripes(shape: tuple[int, ...]) -> Bool[np.ndarray, "h w"]:
    """True on diagonal stripes that fill a third of the picture."""
    return (np.add.outer(np.arange(shape[0]), np.arange(shape[1])) // _STRIPE) % 3 == 0


def _photo_cards(report: SetReport, photos: PhotoSet, view: View) -> list[Card]:
    """Some photos, spread over the set; of tagged ones at least one of each class."""
    palette = colours_of_ids(view, photos.names, report.label_set)
    cards: dict[int, Card] = {}

    def show_one(numbers: Iterable[int]) -> None:
        """The first that can be read; broken ones are named in their own section."""
        for number in numbers:
            with contextlib.suppress(UserError):
                cards[number] = _photo_card(photos, number, view, palette)
                return

    if view.reads == "tags" and report.scan is not None:
        classes = sorted(report.scan.examples.items())[:_CLASSES]
        for place, (class_id, numbers) in enumerate(classes):
            if not any(photos.names[class_id] in (card.tags or ()) for card in cards.values()):
                start = place * len(numbers) // len(classes)
                show_one(numbers[start:] + numbers[:start])
    others = (number for number in spread(photos.count, _TRIES) if number not in cards)
    while len(cards) < _PHOTOS and (number := next(others, None)) is not None:
        show_one([number])
    return [cards[number] for number in sorted(cards)]


def _misfiled_cards(report: SetReport, photos: PhotoSet, view: View) -> list[Card]:
    """Photos that look like another class, the clearest first."""
    palette = colours_of_ids(view, photos.names, report.label_set)
    cards = []
    for one in report.misfiled:
        card = _photo_card(photos, one.photo, view, palette)
        cards.append(dataclasses.replace(card, remark=f"looks more like {photos.names[one.looks_like]}"))
    return cards


def _photo_card(photos: PhotoSet, index: int, view: View, palette: UInt8[np.ndarray, "classes 3"]) -> Card:
    photo = photos.read(index)
    stored = photos.decode_image(photo)
    image = _enlarged(stored)
    tags = None if photo.tags is None else tuple(_tag_name(i, photos, view) for i in photo.tags)
    if photo.mask is None:
        return Card(
            photo.id, (("photo", jpeg_url(image)),), (), None if photo.captions else tags or (), captions=photo.captions
        )
    mask = turned_mask(photos.decode_mask(photo), stored.shape[:2], photo.image)
    painted = paint_mask(_enlarged(mask.astype(np.int32)), photos, view, palette)
    pictures = [("photo", jpeg_url(image)), ("mask", png_url(painted))]
    if painted.shape == image.shape:
        pictures.append(("both", jpeg_url(cv2.addWeighted(image, 0.5, painted, 0.5, 0))))
    return Card(photo.id, tuple(pictures), _legend(mask, photos, view, palette), tags)


def _tag_name(class_id: int, photos: PhotoSet, view: View) -> str:
    if not 0 <= class_id < len(photos.names):
        return f"{class_id}: no class"
    ignored = " (not known to the stream)" if view.columns[class_id] == IGNORE_LABEL else ""
    return f"{photos.names[class_id]}{ignored}"


def _legend(
    mask: Integer[np.ndarray, "h w"], photos: PhotoSet, view: View, palette: UInt8[np.ndarray, "classes 3"]
) -> tuple[Entry, ...]:
    values, pixels = np.unique(mask, return_counts=True)
    entries = []
    for value, number in zip(values.tolist(), pixels.tolist(), strict=True):
        share = number / mask.size
        if 0 <= value < len(palette):
            rgb = _rgb(palette[value])
            style = "striped" if view.columns[value] == IGNORE_LABEL else "plain"
            entries.append(Entry(f"{value} {photos.names[value]}", rgb, style, share))
        elif value == photos.ignore:
            entries.append(Entry(f"{value} unlabelled", _rgb(_GREY), "ignored", share))
        else:
            entries.append(Entry(f"{value}: no class", _rgb(_BLACK), "wrong", share))
    return tuple(sorted(entries, key=lambda entry: -entry.share))


def _crop_cards(run: Experiment, report: SetReport) -> list[Card]:
    """The first crops of the run, with what each of them supervises; those of broken photos are left out."""
    if report.stream is None:
        return []
    name = report.where.partition(".")[2]
    one_by_one = {name: dataclasses.replace(report.stream, batch_size=1)}
    batches = step_batches(one_by_one, seed=run.seed, total_steps=_TRIES)
    cards: list[Card] = []
    for step in range(_TRIES):
        if len(cards) == _CROPS:
            break
        with contextlib.suppress(UserError):
            cards.append(_crop_card(batches[step][name], report.label_set.names))
    return cards


def _crop_card(batch: HostBatch, names: tuple[str, ...]) -> Card:
    """A batch of one."""
    title, crop = str(batch["id"][0]), _enlarged(as_seen(batch))
    if "tokens" in batch:
        others = [*batch.get("locals", [[]])[0], *(denormalised(other) for other in batch.get("recoloured", []))]
        pictures = [("crop", crop), *(("another", _enlarged(other)) for other in others)]
        return Card(title, tuple((name, jpeg_url(pixels)) for name, pixels in pictures))
    if "tags" in batch:
        tags = tuple(names[i] for i in batch["tags"][0] if i != IGNORE_LABEL)
        return Card(title, (("crop", jpeg_url(crop)),), (), tags)
    label: Int32[np.ndarray, "h w"] = batch["label"][0]
    palette = colours.class_colours(names)
    large = _enlarged(label)
    painted = np.where((large == IGNORE_LABEL)[..., None], _GREY, palette[large])
    painted[(large == IGNORE_LABEL) & _stripes(large.shape)] = _DARK
    columns, pixels = np.unique(label, return_counts=True)
    entries = [
        Entry("ignored", _rgb(_GREY), "ignored", n / label.size)
        if c == IGNORE_LABEL
        else Entry(names[c], _rgb(palette[c]), "plain", n / label.size)
        for c, n in zip(columns.tolist(), pixels.tolist(), strict=True)
    ]
    legend = tuple(sorted(entries, key=lambda entry: -entry.share))
    return Card(title, (("crop", jpeg_url(crop)), ("its mask", png_url(painted))), legend)


def as_seen(batch: HostBatch) -> UInt8[np.ndarray, "h w 3"]:
    """The picture of a batch of one; where no photo is, the mean colour, which networks get there."""
    crop = batch["image"][0].copy()
    if extent_of("image") in batch:
        height, width = batch[extent_of("image")][0]
        crop[height:], crop[:, width:] = MEAN.round(), MEAN.round()
    return crop


def denormalised(crop: Float32[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """The picture of a crop as the network gets it."""
    return np.clip(np.round(crop * STD + MEAN), 0, 255).astype(np.uint8)


def _enlarged(pixels: np.ndarray) -> np.ndarray:
    """As large as pictures of the sheet are; photos smoothly, masks by nearest neighbour."""
    height, width = pixels.shape[:2]
    factor = _SIDE / max(height, width)
    shape = max(round(width * factor), 1), max(round(height * factor), 1)
    smooth = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cv2.resize(pixels, shape, interpolation=smooth if pixels.ndim == 3 else cv2.INTER_NEAREST_EXACT)


def _rgb(colour: UInt8[np.ndarray, "3"]) -> tuple[int, int, int]:
    red, green, blue = (int(v) for v in colour)
    return red, green, blue
