"""Trains a segmenter: python train.py --config=configs/quickstart.py [--config.option=value ...].

The same command continues a run that was interrupted.
"""

from absl import flags
from ml_collections import config_flags

from larvseg_jax import cli

CONFIG = config_flags.DEFINE_config_file("config", None, "Which config to run.", lock_config=True)
flags.mark_flag_as_required("config")


def main() -> None:
    """Builds the run from its config and trains it."""
    # Imported late: a mistyped flag is answered before JAX has started.
    from larvseg_jax.config import from_config
    from larvseg_jax.train_loop import train

    train(from_config(CONFIG.value))


if __name__ == "__main__":
    cli.run(main)
