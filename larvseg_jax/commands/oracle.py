"""The oracle test of Table 1: how well features tell apart classes that nobody has taught them (docs/exploratory.md).

    python -m larvseg_jax.oracle --config=configs/voc_animals.py:larvseg,learn=0 --pretrained=dinov2_vits14.npz
        --blocks=all --out=runs/oracle/voc.md --maps=runs/oracle/maps
    python -m larvseg_jax.oracle --run=runs/c171 --data=ade20k_150/1.0.0 --class_list=ade20k_150
    python -m larvseg_jax.oracle --run=runs/c171 --data=my_photos --class_list=ade20k_150 --points=10 --novel_only

Features of a pretrained backbone (--pretrained), of a run (--run), or of both. The photos, and which classes are base
and novel, are those of the config's first evaluation, or of the run's own; --data is a prepared data set or a data
folder with masks in their place. What is computed: larvseg_jax/oracle/oracle.py.
"""

from __future__ import annotations

from pathlib import Path

from larvseg_jax.cli import Flags, Given
from larvseg_jax.commands._places import check_folder, check_output
from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary.class_lists import class_list
from larvseg_jax.weights.places import check_model


def define(flags: Flags) -> None:
    """Adds the flags."""
    flags.config("Whose evaluation has the photos and classes, and whose model --pretrained fits.", required=False)
    flags.text("pretrained", None, "Weights of a backbone (docs/weights.md); by default config.pretrained.")
    flags.text("run", None, "Folder of a run or of a checkpoint, or a .safetensors file.")
    flags.whole("step", None, "Step of the checkpoint; by default the newest.", least=0)
    flags.text("blocks", "", "Features after which blocks of the ViT: all, or 4,8,12; by default after the last.")
    flags.text("data_root", None, "Where the data is, if not where the config says.")
    flags.text("data", None, "Prepared data set or data folder, in --data_root, instead of the evaluation.")
    flags.text("class_list", None, "Class list of --data, such as ade20k_150.")
    flags.text("split", "val", "Which photos of --data.")
    flags.whole("points", 1, "Pixels drawn per class and photo.", least=1)
    flags.whole("repeats", 5, "How often all pixels are drawn anew.", least=1)
    flags.whole("seed", 0, "Seed of the drawing.", least=0)
    flags.whole("limit", 0, "Only the first so many photos; 0 = all.", least=0)
    flags.switch("novel_only", "Also score with the base classes' pixels left out.")
    flags.text("out", None, "Page to write, ending in .md; beside it its plot and its numbers as .json.")
    flags.text("maps", None, "Folder for pictures of photos with the cosines to their drawn pixels.")
    flags.whole("photos", 8, "How many photos of --maps.", least=1)


def main(given: Given) -> None:
    """Loads what is tested, runs the test, prints its tables and writes what is asked for."""
    _check(given)
    # Imported late: a mistyped flag is answered before JAX has started.
    import dataclasses

    from larvseg_jax.config import from_config
    from larvseg_jax.oracle.cosines import Drawing
    from larvseg_jax.oracle.maps import write_maps
    from larvseg_jax.oracle.oracle import Subject, oracle_test
    from larvseg_jax.oracle.page import write_page
    from larvseg_jax.oracle.photos import Photos
    from larvseg_jax.weights.pretrained import check_there

    config = from_config(given.config) if given.config is not None else None
    if config is not None and given.pretrained is not None:
        config = dataclasses.replace(config, pretrained=str(Path(given.pretrained).expanduser()))
    if config is not None and config.pretrained:
        check_there(config.pretrained)
    subject = Subject(
        run=Path(given.run) if given.run is not None else None,
        step=given.step,
        config=config,
        blocks=given.blocks,
        photos=Photos(given.data, given.class_list, given.split) if given.data is not None else None,
        data_root=Path(given.data_root).expanduser() if given.data_root is not None else None,
        limit=given.limit,
    )
    features, photos, scale = subject.open()
    drawing = Drawing(given.points, given.repeats, given.seed)
    found = oracle_test(features, photos, scale, drawing, novel_only=given.novel_only)
    if given.out is not None:
        write_page(found, photos, drawing, given.command, Path(given.out))
    if given.maps is not None:
        write_maps(Path(given.maps), features, photos, scale, drawing, given.photos)


def _check(given: Given) -> None:
    """UserError for what can be known before anything is loaded."""
    if given.pretrained is not None and given.config is None:
        raise UserError(f"--pretrained={given.pretrained} needs a config, whose model it fits: give --config=FILE.py")
    if given.run is None and given.config is None:
        raise UserError("nothing is tested: give --config=FILE.py with --pretrained=FILE, or --run=DIR")
    if (given.data is None) != (given.class_list is None):
        raise UserError("--data and --class_list belong together: give both, or neither for the evaluation's photos")
    if given.class_list is not None:
        class_list(given.class_list)  # UserError if there is none of that name
    check_folder(given.data_root, "data_root")
    check_output(given.out, "out", ".md")
    if given.maps is not None and Path(given.maps).exists() and not Path(given.maps).is_dir():
        raise UserError(f"--maps={given.maps} is a file: give a folder")
    if given.run is not None:
        check_model(Path(given.run), given.step)
