"""Writes a trained model to one file: larvseg export --run=runs/x [--step=800] --out=model.safetensors.

By default the newest checkpoint; --memory adds the method's memory (LarvSeg: its bank). The file can be given as
config.pretrained, to evaluate.py and to predict.

--learnt writes only what the run has learnt, as float16: of a model on a frozen backbone a small file, which
evaluate.py and predict take together with the pretrained one, and model_card.md beside it (docs/weights.md).

--huggingface writes a folder in Hugging Face's layout; an --out that ends in .stablehlo or .onnx the prediction itself,
for chosen classes and photos of one size, which JAX or onnxruntime runs without larvseg_jax (docs/exports.md).
"""

from __future__ import annotations

from pathlib import Path

from larvseg_jax.cli import Flags, Given
from larvseg_jax.commands._places import check_folder, check_output, define_pretrained, pretrained_of
from larvseg_jax.errors import UserError
from larvseg_jax.portable.kinds import SUFFIXES, check_kind
from larvseg_jax.weights.places import check_model


def define(flags: Flags) -> None:
    """Adds the flags."""
    flags.text("run", None, "Folder of a run or of a checkpoint, or a .safetensors file.", required=True)
    flags.whole("step", None, "Step of the checkpoint; by default the newest.", least=0)
    flags.text(
        "out",
        None,
        "File to write, ending in .safetensors, .stablehlo or .onnx; the folder of --huggingface.",
        required=True,
    )
    flags.switch("memory", "Write the method's memory too.")
    flags.switch("learnt", "Write only what the run has learnt, as float16, without the weights that it froze.")
    flags.switch("huggingface", "Write a folder in Hugging Face's layout.")
    define_pretrained(flags)
    flags.switch("evaluate", "Score what --learnt has written on the run's evaluations, for its card.")
    flags.text("data_root", None, "Where the data of --evaluate is, if not where it was in training.")
    flags.texts(
        "licence",
        "A line on the terms of use, for the card of --learnt; may be given several times. For --huggingface one "
        "identifier, such as apache-2.0.",
    )
    flags.texts("classes", "Those that compete in a .stablehlo or .onnx file, as predict takes them; by default all.")
    flags.text("size", None, "HEIGHTxWIDTH of the photos that such a file takes, in pixels.")


def main(given: Given) -> None:
    """Exports the checkpoint."""
    run, out = Path(given.run), Path(given.out)
    program = out.suffix in SUFFIXES
    _check_flags(given, program)
    check_model(run, given.step)
    if program:
        check_output(given.out, "out")
        check_kind(out)
    elif not given.huggingface:
        check_output(given.out, "out", ".safetensors")
    check_folder(given.data_root, "data_root")
    pretrained = pretrained_of(given)
    # Imported late: a mistyped flag is answered before JAX has started.
    from larvseg_jax.export import export

    if given.learnt:
        _learnt(given, run, out, pretrained)
    elif program or given.huggingface:
        _whole(given, run, out, pretrained)
    else:
        export(run, out, given.step, memory=given.memory, pretrained=pretrained)


def _check_flags(given: Given, program: bool) -> None:
    """UserError for flags that say nothing together."""
    kinds = [name for name, chosen in (("--learnt", given.learnt), ("--huggingface", given.huggingface)) if chosen]
    kinds += [f"--out={given.out}"] * program
    if len(kinds) > 1:
        raise UserError(f"{' and '.join(kinds)} are different files: choose one")
    if given.memory and kinds:
        raise UserError(f"--memory with {kinds[0]}: leave one out; this is for inference, which needs no memory")
    if not given.learnt and (given.evaluate or (given.licence and not given.huggingface)):
        raise UserError("--evaluate and --licence are for the card, which --learnt writes: give --learnt, too")
    if given.huggingface and len(given.licence) > 1:
        raise UserError("--licence: a card of Hugging Face's has one, give one identifier such as apache-2.0")
    if not program and (given.classes or given.size):
        raise UserError(
            f"--classes and --size are for files of one program: give an --out that ends in {' or '.join(SUFFIXES)}"
        )
    if program and not given.size:
        raise UserError(f"--size is missing: --out={given.out} takes photos of one size, give one such as 480x640")
    if program:
        _size(given.size)


def _learnt(given: Given, run: Path, out: Path, pretrained: Path | None) -> None:
    """The small file and its card."""
    from larvseg_jax.evaluate import evaluate_checkpoint
    from larvseg_jax.export import check_card, export_learnt, write_card

    check_card(out)
    saved, frozen = export_learnt(run, out, given.step, pretrained)
    scores = evaluate_checkpoint(out, data_root=given.data_root, pretrained=frozen) if given.evaluate else {}
    write_card(run, out, saved, frozen, scores, given.licence)


def _whole(given: Given, run: Path, out: Path, pretrained: Path | None) -> None:
    """What is made of the whole model: a folder of Hugging Face's, or a program."""
    from larvseg_jax.console import stage
    from larvseg_jax.hub.layout import check_layout, check_licence, write_layout
    from larvseg_jax.portable.export import export_program
    from larvseg_jax.predict.classes import check_several, choose_classes
    from larvseg_jax.trained import load_trained

    licence = given.licence[0] if given.licence else ""
    if given.huggingface:
        check_layout(out)
        check_licence(licence)
    with stage("checkpoint"):
        trained = load_trained(run, given.step, pretrained=pretrained)
    if given.huggingface:
        write_layout(trained, out, licence)
        return
    names = choose_classes(given.classes or None, trained.vocabulary, lists=trained.class_lists)
    check_several(names)
    export_program(trained, out, names, _size(given.size))


def _size(text: str) -> tuple[int, int]:
    try:
        height, width = map(int, text.lower().split("x"))
    except ValueError:
        height = width = 0
    if min(height, width) < 1:
        raise UserError(f"--size={text} is no size in pixels: give HEIGHTxWIDTH such as 480x640")
    return height, width
