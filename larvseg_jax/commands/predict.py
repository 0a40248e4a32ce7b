"""The classes in your photos: larvseg predict photo.jpg folder/ --model=runs/x --classes=cat,dog.

Writes for every photo an overlay with names and a legend, a 16-bit label map, a coloured map, and a JSON file with the
segments (docs/predict.md). Photos and folders stand without a flag or after --image. What cannot be read stops no
other photo: it is listed at the end, and the exit code is 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data_pipelines.picture_files import MAX_MEGAPIXELS
from larvseg_jax.cli import Flags, Given, fail
from larvseg_jax.commands._places import MODEL, define_pretrained, pretrained_of
from larvseg_jax.commands._settings import method_settings
from larvseg_jax.commands._windows import define_windows, scale_of
from larvseg_jax.errors import UserError
from larvseg_jax.predict.classes import check_several, choose_classes
from larvseg_jax.predict.names import FORMATS, targets
from larvseg_jax.predict.photos import find_photos
from larvseg_jax.shipped.shipped import located
from larvseg_jax.vocabulary import Vocabulary
from larvseg_jax.weights.places import check_model, stated_classes

TAKES_REST = True  # photos
INTERRUPTED = "what was written is whole; the same command predicts all photos again"


def define(flags: Flags) -> None:
    """Adds the flags."""
    flags.text("model", None, f"The model: {MODEL}.")
    flags.text("run", None, "The same as --model, as other commands call it.")
    flags.whole("step", None, "Step of the checkpoint; by default the newest.", least=0)
    define_pretrained(flags)
    flags.texts("image", "A photo, or a folder of photos; may be given several times.")
    flags.texts(
        "classes",
        "The classes that compete: names, synonyms, synsets, class lists or files of names (docs/vocabulary.md), "
        "separated by commas, or the flag once for each; by default all. A text that is a name as it stands is not "
        "separated.",
    )
    flags.texts("exclude", "Of these, those that do not compete; written as --classes.")
    flags.texts("show", "Names of the classes that are coloured, the rest is grey; written as --classes. Default: all.")
    flags.texts("format", f"Write these, too, separated by commas: {', '.join(FORMATS)}.")
    flags.text("out", "predictions", "Folder for the files, or for one photo a name ending in .png.")
    flags.number("memory_gb", 1.5, "Memory above the weights that may be used, GiB.", least=0.0)
    flags.whole("max_megapixels", MAX_MEGAPIXELS, "The largest photo that is read, millions of pixels.", least=1)
    flags.switch("probabilities", "Softmax over all classes (much slower with many).")
    flags.number("novel_offset", None, "Added to the scores of novel classes, if not as in the evaluation.")
    flags.texts("set", "method.option=value: how the method scores, if not as in training; may be repeated.")
    define_windows(flags)


def main(given: Given) -> None:
    """Predicts all photos, writes the files and prints a table for each; the exit code is 2 if some could not be."""
    model, pretrained = located(_model(given), pretrained_of(given))
    photos = [Path(name) for name in (*given.image, *given.rest)]
    if not photos:
        raise UserError("there is no photo: give photo.jpg, or a folder of photos")
    scale = scale_of(given)
    formats, options = _formats(given.format), method_settings(given.set)
    classes, show = ([text for text in texts if text] or None for texts in (given.classes, given.show))
    found, missing = find_photos(photos)
    if not found:
        fail(*missing)
    written_to = dict(zip(found, targets(found, Path(given.out)), strict=True))
    check_model(model, given.step)
    exclude = [text for text in given.exclude if text]
    _check_names(model, given.step, classes, exclude, show)
    # Imported late: a mistyped flag is answered before JAX has started.
    from larvseg_jax.predict.predict import predict

    problems = predict(
        model,
        written_to,
        step=given.step,
        pretrained=pretrained,
        classes=classes,
        exclude=exclude,
        show=show,
        formats=formats,
        probabilities=given.probabilities,
        memory=int(given.memory_gb * 2**30),
        max_megapixels=given.max_megapixels,
        scale=scale,
        whole=given.whole,
        novel_offset=given.novel_offset,
        options=options,
        missing=missing,
    )
    if problems:
        fail(*problems)


def _model(given: Given) -> str:
    if given.model is not None and given.run is not None:
        raise UserError("--model and --run are the same: give one of the two")
    text = given.run if given.model is None else given.model
    if text is None:
        raise UserError(f"--model is missing: give {MODEL}")
    return str(text)


def _check_names(
    model: Path, step: int | None, classes: Sequence[str] | None, exclude: Sequence[str], show: Sequence[str] | None
) -> None:
    """UserError for names that the model does not know, or that are to be shown and do not compete.

    Where it does not say what it knows without being loaded, it is told then.
    """
    stated = stated_classes(model, step)
    if stated is None:
        return
    vocabulary, lists = stated
    competing = choose_classes(classes, vocabulary, exclude, lists)
    check_several(competing)
    if show is not None:
        choose_classes(show, Vocabulary(competing), lists=lists, option="show")


def _formats(texts: Sequence[str]) -> list[str]:
    names = [name.strip() for text in texts for name in text.split(",") if name.strip()]
    for name in names:
        if name not in FORMATS:
            raise UserError(f"--format={name} is not known: use {', '.join(FORMATS)}")
    return list(dict.fromkeys(names))
