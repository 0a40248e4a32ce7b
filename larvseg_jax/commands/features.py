"""Makes the features of a frozen backbone once, for trainings that read them: docs/features.md.

    python -m larvseg_jax.features --config=configs/own_data.py:mydata,size=B --config.optimizer.frozen=^backbone/
        --out=features/mydata [--views=4] [--blocks=N]
    python train.py (the same config and options) --config.features=features/mydata

An interrupted run goes on with the same command.
"""

from __future__ import annotations

from pathlib import Path

from larvseg_jax.cli import Flags, Given
from larvseg_jax.errors import UserError

INTERRUPTED = "the same command goes on with the shards that are missing"


def define(flags: Flags) -> None:
    """Adds the flags."""
    flags.config("Config of the run that is to read them.", required=True)
    flags.text("out", None, "Folder for them; each stream has its own in it.", required=True)
    flags.whole("views", 4, "Views of each photo: crops and colours drawn as the stream draws them.", least=1)
    flags.whole(
        "blocks", None, "Blocks of the backbone that photos go through; by default all that are frozen.", least=1
    )


def main(given: Given) -> None:
    """Makes them."""
    out = Path(given.out).expanduser()
    if out.exists() and not out.is_dir():
        raise UserError(f"--out={given.out} is a file: give a folder")
    # Imported late: a mistyped flag is answered before JAX is loaded.
    from larvseg_jax.config import from_config
    from larvseg_jax.features.features import make_features
    from larvseg_jax.start import check_start

    run = from_config(given.config)
    check_start(run)
    make_features(run, out, given.views, given.blocks)
