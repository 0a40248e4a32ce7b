"""The oracle test of Table 1: how well a run's features tell apart classes that it need not know.

    python -m larvseg_jax.oracle --run=runs/c171 --data=ade20k_150/1.0.0 --class_list=ade20k_150
    python -m larvseg_jax.oracle --run=runs/c171 --data=my_photos --class_list=ade20k_150 --points=10 --novel_only

--data is a prepared data set or a data folder with masks; what is computed: larvseg_jax/oracle/oracle.py.
"""

from __future__ import annotations

from pathlib import Path

from larvseg_jax.cli import Flags, Given
from larvseg_jax.commands._places import check_folder
from larvseg_jax.vocabulary.class_lists import class_list
from larvseg_jax.weights.places import check_model


def define(flags: Flags) -> None:
    """Adds the flags."""
    flags.text("run", None, "Folder of a run or of a checkpoint, or a .safetensors file.", required=True)
    flags.whole("step", None, "Step of the checkpoint; by default the newest.", least=0)
    flags.text("data_root", None, "Where the data is, if not where it was in training.")
    flags.text("data", None, "Prepared data set or data folder, in --data_root.", required=True)
    flags.text("class_list", None, "Class list of the data, such as ade20k_150.", required=True)
    flags.text("split", "val", "Which of its photos.")
    flags.whole("points", 1, "Pixels drawn per class and photo.", least=1)
    flags.whole("repeats", 5, "How often all pixels are drawn anew.", least=1)
    flags.whole("seed", 0, "Seed of the drawing.", least=0)
    flags.whole("limit", 0, "Only the first so many photos; 0 = all.", least=0)
    flags.switch("novel_only", "Also score with the base classes' pixels left out.")


def main(given: Given) -> None:
    """Loads the checkpoint, runs the test and prints its table."""
    check_model(Path(given.run), given.step)
    check_folder(given.data_root, "data_root")
    class_list(given.class_list)  # UserError if there is none of that name
    # Imported late: a mistyped flag is answered before JAX has started.
    from larvseg_jax.oracle.cosines import Drawing
    from larvseg_jax.oracle.oracle import Photos, oracle_test

    oracle_test(
        Path(given.run),
        Photos(given.data, given.class_list, given.split, given.data_root, given.limit),
        Drawing(given.points, given.repeats, given.seed),
        step=given.step,
        novel_only=given.novel_only,
    )
