"""Evaluates a checkpoint: python evaluate.py --run=runs/quickstart [--step=800] [--data_root=DIR].

By default the newest checkpoint, with the evaluation of the config it was trained with. Another config
of the same vocabulary (other photos, windows, classes) can be given by --config.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from larvseg_jax import cli, process_flags

RUN = flags.DEFINE_string("run", None, "Folder of the run, with checkpoints/ in it.", required=True)
STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint; by default the newest.")
DATA_ROOT = flags.DEFINE_string("data_root", None, "Where the data is, if not where it was in training.")
CONFIG = config_flags.DEFINE_config_file("config", None, "Evaluate as this config says.", lock_config=True)


def main() -> None:
    """Loads the checkpoint and prints its scores."""
    process_flags.start_processes()
    # Imported late: a mistyped flag is answered before JAX has started.
    from larvseg_jax.evaluate_run import evaluate_checkpoint

    evaluate_checkpoint(Path(RUN.value), STEP.value, DATA_ROOT.value, CONFIG.value)


if __name__ == "__main__":
    cli.run(main)
