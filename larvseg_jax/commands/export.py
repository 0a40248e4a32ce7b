"""Writes a trained model to one file: larvseg export --run=runs/x [--step=800] --out=model.safetensors.

By default the newest checkpoint; --memory adds the method's memory (LarvSeg: its bank). The file can be given as
config.pretrained, to evaluate.py and to predict.

--learnt writes only what the run has learnt, as float16: of a model on a frozen backbone a small file, which
evaluate.py and predict take together with the pretrained one, and model_card.md beside it (docs/weights.md).
"""

from __future__ import annotations

from pathlib import Path

from larvseg_jax.cli import Flags, Given
from larvseg_jax.commands._places import check_folder, check_output, define_pretrained, pretrained_of
from larvseg_jax.errors import UserError
from larvseg_jax.weights.places import check_model


def define(flags: Flags) -> None:
    """Adds the flags."""
    flags.text("run", None, "Folder of a run or of a checkpoint, or a .safetensors file.", required=True)
    flags.whole("step", None, "Step of the checkpoint; by default the newest.", least=0)
    flags.text("out", None, "File to write, ending in .safetensors.", required=True)
    flags.switch("memory", "Write the method's memory too.")
    flags.switch("learnt", "Write only what the run has learnt, as float16, without the weights that it froze.")
    define_pretrained(flags)
    flags.switch("evaluate", "Score what --learnt has written on the run's evaluations, for its card.")
    flags.text("data_root", None, "Where the data of --evaluate is, if not where it was in training.")
    flags.texts("licence", "A line on the terms of use, for the card of --learnt; may be given several times.")


def main(given: Given) -> None:
    """Exports the checkpoint."""
    run, out = Path(given.run), Path(given.out)
    if given.learnt and given.memory:
        raise UserError(
            "--memory with --learnt: leave one out; what was learnt is for inference, which needs no memory"
        )
    if not given.learnt and (given.evaluate or given.licence):
        raise UserError("--evaluate and --licence are for the card, which --learnt writes: give --learnt, too")
    check_model(run, given.step)
    check_output(given.out, "out", ".safetensors")
    check_folder(given.data_root, "data_root")
    pretrained = pretrained_of(given)
    # Imported late: a mistyped flag is answered before JAX has started.
    from larvseg_jax.evaluate import evaluate_checkpoint
    from larvseg_jax.export import check_card, export, export_learnt, write_card

    if not given.learnt:
        export(run, out, given.step, memory=given.memory, pretrained=pretrained)
        return
    check_card(out)
    saved, frozen = export_learnt(run, out, given.step, pretrained)
    scores = evaluate_checkpoint(out, data_root=given.data_root, pretrained=frozen) if given.evaluate else {}
    write_card(run, out, saved, frozen, scores, given.licence)
