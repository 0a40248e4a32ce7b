"""Labels photos with classes that nobody has named in them, by the regions of one model and the words of another.

    larvseg pseudo_labels --run=runs/cel_scenes_pretrain --clip=ViT-B-16.pt --out=pseudo/tags.json

The regions that --run proposes are cut out, and a class is a label of a photo if --clip is sure that one of its regions
shows it rather than one of the other --classes (docs/pseudo_labels.md). The list is what `source.tags_file` of a stream
reads, or, with --images, a list of tagged photos (docs/own_data.md). Scores are kept beside it: the same command with
another --threshold is done at once, and a stopped one goes on.
"""

from __future__ import annotations

from pathlib import Path

from larvseg_jax.cli import Flags, Given
from larvseg_jax.commands._places import check_folder, check_output
from larvseg_jax.errors import UserError
from larvseg_jax.text.prompts import templates
from larvseg_jax.vocabulary.free_names import free_names
from larvseg_jax.weights.places import check_model

INTERRUPTED = "the same command goes on with the photos that are missing"
FILLS = ("none", "mean")


def define(flags: Flags) -> None:
    """Adds the flags."""
    flags.text("run", None, "A trained model of a method with proposals: a run, a checkpoint, a file.", required=True)
    flags.whole("step", None, "Step of its checkpoint; by default the newest.", least=0)
    flags.text("clip", None, "A trained model of CLIP or ViL-Seg, or a CLIP's file.", required=True)
    flags.whole("clip_step", None, "Step of its checkpoint; by default the newest.", least=0)
    flags.text("out", None, "The list of tags to be written, ending in .json.", required=True)
    flags.texts(
        "classes", "Names, class lists or files of names, separated by commas; by default the run's novel ones."
    )
    flags.number("threshold", 0.99, "A label's score is above this.", least=0.0)
    flags.text("stream", "", "Of --run: whose photos are labelled; by default its first.")
    flags.text("images", None, "A folder of pictures that are labelled instead.")
    flags.text("data_root", None, "Where the stream's data is, if not where it was in training.")
    flags.whole("limit", 0, "Only the first so many photos; 0 = all.", least=0)
    flags.text("fill", "none", "Outside a region its crop shows the photo (none), or the mean colour (mean).")
    flags.text("templates", "", "Sentences for the names, as of larvseg text_vectors; by default the model's own.")


def main(given: Given) -> None:
    """Labels the photos and writes the list."""
    check_output(given.out, "out", ".json")
    check_folder(given.data_root, "data_root")
    check_folder(given.images, "images")
    run, clip, out = (Path(text).expanduser() for text in (given.run, given.clip, given.out))
    images = None if given.images is None else Path(given.images).expanduser()
    if given.fill not in FILLS:
        raise UserError(f"--fill={given.fill}: use one of {', '.join(FILLS)}")
    if images is not None and out.resolve().is_relative_to(images.resolve()):
        raise UserError(f"--out={given.out} lies among the pictures: give another folder, and copy it there when done")
    if images is not None and (given.stream or given.data_root):
        raise UserError("--images and --stream or --data_root do not go together: leave one of them out")
    if given.templates:
        templates(given.templates)
    names = free_names(given.classes) if given.classes else ()
    check_model(run, given.step)
    check_model(clip, given.clip_step)
    # Imported late: a mistyped flag is answered before JAX has started.
    from larvseg_jax.pseudo_labels.label import Request, label_photos

    label_photos(
        Request(
            run,
            clip,
            out,
            names,
            threshold=given.threshold,
            step=given.step,
            clip_step=given.clip_step,
            stream=given.stream,
            images=images,
            data_root=given.data_root,
            limit=given.limit,
            fill=given.fill,
            templates=given.templates,
        )
    )
