"""The oracle test of Table 1: how well a run's features tell apart classes that it need not know.

    python -m larvseg_jax.oracle --run=runs/c171 --data=ade20k_150/1.0.0 --class_list=ade20k_150
    python -m larvseg_jax.oracle --run=runs/c171 --data=my_photos --class_list=ade20k_150 --points=10 --novel_only

--data is a prepared data set or a data folder with masks; what is computed: larvseg_jax/oracle_run.py.
"""

from pathlib import Path

from absl import flags

from larvseg_jax import cli

RUN = flags.DEFINE_string("run", None, "Folder of the run, with checkpoints/ in it.", required=True)
DATA = flags.DEFINE_string("data", None, "Prepared data set or data folder, in --data_root.", required=True)
CLASS_LIST = flags.DEFINE_string("class_list", None, "Class list of the data, such as ade20k_150.", required=True)
SPLIT = flags.DEFINE_string("split", "val", "Which of its photos.")
STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint; by default the newest.")
POINTS = flags.DEFINE_integer("points", 1, "Pixels drawn per class and photo.", lower_bound=1)
REPEATS = flags.DEFINE_integer("repeats", 5, "How often all pixels are drawn anew.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Seed of the drawing.", lower_bound=0)
DATA_ROOT = flags.DEFINE_string("data_root", None, "Where the data is, if not where it was in training.")
LIMIT = flags.DEFINE_integer("limit", 0, "Only the first so many photos; 0 = all.", lower_bound=0)
NOVEL_ONLY = flags.DEFINE_boolean("novel_only", False, "Also score with the base classes' pixels left out.")


def main() -> None:
    """Loads the checkpoint, runs the test and prints its table."""
    # Imported late: a mistyped flag is answered before JAX has started.
    from larvseg_jax.oracle_prediction import Drawing
    from larvseg_jax.oracle_run import oracle_test

    drawing = Drawing(POINTS.value, REPEATS.value, SEED.value)
    oracle_test(
        Path(RUN.value),
        DATA.value,
        CLASS_LIST.value,
        drawing,
        split=SPLIT.value,
        step=STEP.value,
        data_root=DATA_ROOT.value,
        limit=LIMIT.value,
        novel_only=NOVEL_ONLY.value,
    )


if __name__ == "__main__":
    cli.run(main)
