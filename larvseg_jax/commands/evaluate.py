"""Evaluates a checkpoint: python evaluate.py --run=runs/quickstart [--step=800] [--data_root=DIR].

    python evaluate.py --run=runs/c171_i21k --vocabulary_curve=curve.json     # and curve.png
    python evaluate.py --run=runs/quickstart --hierarchy                      # and Open mIoU, mIoU of coarser classes
    python evaluate.py --run=runs/mydata --novel_offset=choose                # novel classes held back, or helped

By default the newest checkpoint, with the evaluations of the config it was trained with. Another config of the same
vocabulary (other photos, windows, classes) can be given by --config. --vocabulary_curve scores the checkpoint while
more and more classes compete, in one pass over the photos of the evaluation that has rivals
(evaluation/vocabulary_curve.py). --hierarchy adds, to either, scores in which a mistake counts the less, the more alike
the two classes are in WordNet (evaluation/open_scores.py), and to evaluations the scores of what remains when the tree
of their classes is cut at a depth (evaluation/tree_scores.py); docs/vocabulary.md says how classes get their synsets.
--novel_offset adds a number to the scores of novel classes, or one that is chosen by the photos' base masks
(evaluation/novel_offset.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from larvseg_jax.cli import Flags, Given
from larvseg_jax.commands._places import check_folder, define_pretrained, pretrained_of
from larvseg_jax.commands._processes import define_processes, several_processes
from larvseg_jax.errors import UserError
from larvseg_jax.weights.places import check_model


def define(flags: Flags) -> None:
    """Adds the flags."""
    flags.text("run", None, "Folder of a run or of a checkpoint, or a .safetensors file.", required=True)
    flags.whole("step", None, "Step of the checkpoint; by default the newest.", least=0)
    define_pretrained(flags)
    flags.text("data_root", None, "Where the data is, if not where it was in training.")
    flags.text(
        "vocabulary_curve", None, "JSON file for the scores as the vocabulary grows, instead of the evaluations."
    )
    flags.switch("hierarchy", "Score by the hierarchy of the classes, too, as docs/vocabulary.md says.")
    flags.text("novel_offset", None, 'Added to the scores of novel classes: a number, or "choose".')
    flags.config("Evaluate as this config says.", required=False)
    define_processes(flags)


def main(given: Given) -> None:
    """Loads the checkpoint and prints its scores."""
    check_model(Path(given.run), given.step)
    check_folder(given.data_root, "data_root")
    pretrained = pretrained_of(given)
    offset = _offset(given.novel_offset)
    if offset is not None and given.vocabulary_curve:
        raise UserError("--novel_offset and --vocabulary_curve do not go together: leave one of them out")
    with several_processes(given):
        # Imported late: a mistyped flag is answered before JAX has started.
        from larvseg_jax.evaluate import evaluate_checkpoint, evaluate_curve

        how = (given.step, given.data_root, given.config)
        if given.vocabulary_curve:
            out = Path(given.vocabulary_curve)
            evaluate_curve(Path(given.run), out, *how, pretrained=pretrained, hierarchy=given.hierarchy)
            return
        evaluate_checkpoint(Path(given.run), *how, pretrained, hierarchy=given.hierarchy, novel_offset=offset)


def _offset(text: str | None) -> float | Literal["choose"] | None:
    if text is None:
        return None
    if text == "choose":
        return "choose"
    try:
        return float(text)
    except ValueError:
        raise UserError(f'--novel_offset={text}: give a number, or "choose"') from None
