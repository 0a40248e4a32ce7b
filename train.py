"""Trains a segmenter: python train.py --config=configs/quickstart.py [--config.option=value ...].

The same command continues a run that was interrupted. On several hosts it is started once on each, with --coordinator
(and config.workdir on a disk that they share): see --help.
"""

from absl import flags
from ml_collections import config_flags

from larvseg_jax import cli, process_flags

CONFIG = config_flags.DEFINE_config_file("config", None, "Which config to run.", lock_config=True)
PROFILE = flags.DEFINE_string("profile", "", "START:STOP: trace these steps, for TensorBoard and Perfetto.")
flags.mark_flag_as_required("config")


def main() -> None:
    """Builds the run from its config and trains it."""
    process_flags.start_processes()
    # Imported late: a mistyped flag is answered before JAX has started.
    from larvseg_jax.config import from_config
    from larvseg_jax.profiling import parse_window
    from larvseg_jax.train_loop import train

    run = from_config(CONFIG.value)
    train(run, parse_window(PROFILE.value, run.total_steps) if PROFILE.value else None)


if __name__ == "__main__":
    cli.run(main)
