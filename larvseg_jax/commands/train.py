"""Trains a segmenter: python train.py --config=configs/quickstart.py [--config.option=value ...].

The same command continues a run that was interrupted. On several hosts it is started once on each, with --coordinator
(and config.workdir on a disk that they share). --show prints the config, resolved, and does nothing else.
"""

from __future__ import annotations

from larvseg_jax.cli import Flags, Given
from larvseg_jax.commands._processes import define_processes, several_processes
from larvseg_jax.errors import UserError

INTERRUPTED = "the same command goes on from the last checkpoint; before the first one it begins again"


def define(flags: Flags) -> None:
    """Adds the flags."""
    flags.config("Which config to run.", required=True)
    flags.text("profile", "", "START:STOP: trace these steps, for TensorBoard and Perfetto.")
    flags.switch("show", "Print every option with its value, and which differ from their defaults; train nothing.")
    flags.texts("accept", "data: go on although the data is not that of the checkpoint; the differences are listed.")
    define_processes(flags)


def main(given: Given) -> None:
    """Builds the run from its config and trains it."""
    unknown = set(given.accept) - {"data"}
    if unknown:
        raise UserError(f"--accept={sorted(unknown)[0]}: the only thing to accept is data")
    # Imported late: a mistyped flag is answered before JAX is loaded.
    from larvseg_jax.config import from_config
    from larvseg_jax.devices.host_memory import use_one_heap
    from larvseg_jax.show import show
    from larvseg_jax.start import check_start
    from larvseg_jax.train import train
    from larvseg_jax.training.profiling import parse_window

    use_one_heap()
    run = from_config(given.config)
    if given.show:
        show(run)
        return
    profiled = parse_window(given.profile, run.total_steps) if given.profile else None
    check_start(run)
    with several_processes(given):
        train(run, profiled, given.accept)
