"""Prepares a downloaded data set: python -m data_pipelines.prepare NAME --from=DIR.

    python -m data_pipelines.prepare ade20k_150 --from=~/downloads/ADEChallengeData2016 --data_root=~/data --workers=8

writes DATA_ROOT/ade20k_150/1.0.0, an ArrayRecord data set of TFDS. NAME is that of the data set's class list, or
`captions` (docs/captions.md). The download is only read. An interrupted run goes on with the same command.

Several hosts that see both folders write a part each, with --part=1/16 to --part=16/16; then one makes the data set of
the parts with the same command without --part.
"""

from __future__ import annotations

import os
from pathlib import Path

from data_pipelines.picture_files import MAX_MEGAPIXELS
from larvseg_jax.cli import Flags, Given
from larvseg_jax.errors import UserError

TAKES_REST = True  # NAME
INTERRUPTED = "the same command goes on with the shards that are missing"


def define(flags: Flags) -> None:
    """Adds the flags."""
    flags.text("from", None, "Folder of the download.", required=True)
    flags.text(
        "data_root",
        os.environ.get("LARVSEG_DATA", "."),
        "Folder of the prepared data sets; by default the environment variable LARVSEG_DATA, or this folder.",
    )
    flags.text("data_dir", None, "The name of --data_root until version 0.1.")
    flags.whole("workers", os.cpu_count() or 1, "Processes; by default one per core.", least=1)
    flags.text("part", None, "Only this part of the shards, such as 3/16: for several hosts; see above.")
    flags.whole("max_megapixels", MAX_MEGAPIXELS, "Larger photos and masks are left out; millions of pixels.", least=1)


def main(given: Given) -> None:
    """Prepares the data set NAME."""
    from data_pipelines.builders.parts import Part
    from data_pipelines.builders.preparation import prepare
    from data_pipelines.prepare import BUILDERS

    if len(given.rest) != 1 or given.rest[0] not in BUILDERS:
        names = ", ".join(BUILDERS)
        raise UserError(f"there is no data set {' '.join(given.rest)!r}: use one of {names}")
    part = None if given.part is None else Part.of(given.part)
    download, data_root = (
        Path(given.value(flag)).expanduser() for flag in ("from", "data_dir" if given.data_dir else "data_root")
    )
    prepare(BUILDERS[given.rest[0]], download, data_root, given.workers, given.max_megapixels, part)
