"""Predicts photos in files: a table on the terminal, and files beside each other."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.picture_files import MAX_MEGAPIXELS
from larvseg_jax.console import console, first_few, in_gib, printable, stage, track
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.search_memory import TooLittleMemoryError
from larvseg_jax.predict import files
from larvseg_jax.predict.classes import choose_classes
from larvseg_jax.predict.photos import sizes
from larvseg_jax.predict.pictures import read_photo
from larvseg_jax.predict.predictor import DEFAULT_MEMORY, Predictor
from larvseg_jax.predict.segmentation import Segmentation
from larvseg_jax.predict.segmenter import PHOTO_BYTES
from larvseg_jax.trained import load_trained
from larvseg_jax.vocabulary import Vocabulary
from larvseg_jax.vocabulary.free_names import free_names

_NUMBERS = "the legend gives numbers, places in `names` of the JSON"


def predict(
    model: Path,
    targets: Mapping[Path, Path],
    *,
    step: int | None = None,
    pretrained: Path | None = None,
    classes: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    show: Sequence[str] | None = None,
    formats: Sequence[str] = (),
    probabilities: bool = False,
    memory: int = DEFAULT_MEMORY,
    max_megapixels: int = MAX_MEGAPIXELS,
    scale: tuple[int, int] | None = None,
    whole: bool = False,
    novel_offset: float | None = None,
    options: Mapping[str, Any] | None = None,
    missing: Sequence[UserError] = (),
) -> list[UserError]:
    """Predicts photos, writes the files and prints a table for each; returns what is wrong with the others.

    Args:
      model: folder of a run or of a checkpoint, or an exported file.
      targets: photo -> the file of its overlay (predict/names.py).
      step: which checkpoint; the newest by default.
      pretrained: the weights that an exported file leaves out (`trained.load_trained`).
      classes: of those that compete, as `classes.choose_classes` takes them; None: all.
      exclude: of those of them that do not.
      show: of those that are coloured, likewise; None: all.
      formats: names of `exports.EXPORTS`.
      probabilities, memory: see `Predictor`.
      max_megapixels: the largest photo that is read, millions of pixels.
      scale: (long, short) limits of the resized photo's sides, if not as in the evaluation.
      whole: the whole photo at once instead of sliding windows.
      novel_offset: added to the scores of novel classes, if not what the evaluation adds.
      options: of the method, how it scores if not as in training (`trained.load_trained`).
      missing: what is wrong with photos that were asked for and are not among these; counted and returned as well.

    Raises:
      UserError: the model or the options are not right, whatever the photos.
    """
    problems = list(missing)
    with stage("model"):
        free = None if classes is None else free_names(classes)
        trained = load_trained(model, step, pretrained=pretrained, classes=free, options=options)
        trained = trained if novel_offset is None else trained.with_novel_offset(novel_offset)
    windows = dataclasses.replace(trained.windows, scale=scale or trained.windows.scale)
    predictor = Predictor(trained, dataclasses.replace(windows, window=0) if whole else windows)
    vocabulary, lists = trained.vocabulary, trained.class_lists
    names = choose_classes(classes, vocabulary, exclude, lists)
    shown = None if show is None else frozenset(choose_classes(show, Vocabulary(names), lists=lists, option="show"))

    _print_peak(predictor, sizes(list(targets), max_megapixels), names, probabilities, memory)
    unwritable: dict[str, None] = {}
    for photo, target in track(targets.items(), len(targets), "prediction"):
        try:
            image = read_photo(photo, max_megapixels)
            size = image.shape[0], image.shape[1]
            left = memory - PHOTO_BYTES * size[0] * size[1]
            strips = predictor.strips(image, names, 1, probabilities=probabilities, memory=left)
        except UserError as error:
            of_this = isinstance(error, TooLittleMemoryError)  # which does not name the photo
            problems.append(UserError(f"{printable(photo)}: {error}") if of_this else error)
            continue
        found = Segmentation.of(strips, size, vocabulary.groups(names))
        written = files.write(target, str(photo), image, found, str(model), show=shown, formats=formats)
        console.print(printable(photo))
        if remark := predictor.remark(size):
            console.print(f"warning: {printable(photo)} {remark} (--scale)")
        console.print(files.table(found))
        console.print(f"written: {', '.join(map(printable, written))}")
        unwritable |= dict.fromkeys(files.without_letters(found))
    if unwritable:
        console.print(f"no font here has the letters of {first_few(map(printable, unwritable))}: {_NUMBERS}")
    if problems:
        asked = len(targets) + len(missing)
        console.print(f"predicted: {asked - len(problems)} of {asked}; not predicted:")
    return problems


def _print_peak(
    predictor: Predictor,
    found: Iterable[tuple[int, int]],
    names: Collection[str],
    probabilities: bool,
    memory: int,
) -> None:
    """Says how much memory the largest photo will take; UserError if the classes are not right."""
    largest = max(found, key=lambda size: size[0] * size[1], default=(1, 1))
    photo = PHOTO_BYTES * largest[0] * largest[1]
    with contextlib.suppress(TooLittleMemoryError):  # said of each photo
        needed = photo + predictor.peak_memory(
            largest, tuple(names), 1, probabilities=probabilities, memory=memory - photo, strips=True
        )
        console.print(
            f"peak memory: at most {in_gib(needed)} above the weights ({in_gib(predictor.weight_bytes)}), "
            f"for {largest[1]} x {largest[0]} pixels"
        )
