"""Prepares a downloaded data set: `python -m data_pipelines.prepare NAME --from=DIR`.

    python -m data_pipelines.prepare ade20k_150 --from=~/downloads/ADEChallengeData2016 --data_dir=~/data --workers=8

writes DIR/ade20k_150/1.0.0, an ArrayRecord data set of TFDS. NAME is that of the data set's class list. The
download is only read. An interrupted run goes on with the same command.
"""

import argparse
import os
import sys
from pathlib import Path

from data_pipelines.builders.ade20k import Ade20k
from data_pipelines.builders.ade20k_full import Ade20kFull
from data_pipelines.builders.cityscapes import Cityscapes
from data_pipelines.builders.coco_stuff import CocoStuff
from data_pipelines.builders.imagenet21k import ImageNet21k, ImageNet21kSubset124, ImageNet21kSubset585
from data_pipelines.builders.layout import LayoutBuilder
from data_pipelines.builders.pascal_context import PascalContext59, PascalContext459
from data_pipelines.builders.pascal_voc import PascalVoc
from data_pipelines.builders.prepare import prepare
from larvseg_jax.errors import UserError

BUILDERS: dict[str, type[LayoutBuilder]] = {
    builder.CLASS_LIST: builder
    for builder in (
        CocoStuff,
        Ade20k,
        Ade20kFull,
        PascalVoc,
        PascalContext59,
        PascalContext459,
        Cityscapes,
        ImageNet21k,
        ImageNet21kSubset124,
        ImageNet21kSubset585,
    )
}
"""Name of a data set -> its builder."""


def main() -> None:
    """Command line; bad input is one line and exit code 2."""
    parser = argparse.ArgumentParser(
        description="Prepares a downloaded data set.", epilog=f"NAME is one of {', '.join(BUILDERS)}."
    )
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--from", required=True, type=_folder, metavar="DIR", dest="root", help="the download")
    parser.add_argument(
        "--data_dir",
        default=os.environ.get("LARVSEG_DATA", "."),
        type=_folder,
        metavar="DIR",
        help="folder of the prepared data sets (default: the environment variable LARVSEG_DATA, or this folder)",
    )
    parser.add_argument(
        "--workers", default=os.cpu_count() or 1, type=int, metavar="N", help="processes (default: one a core)"
    )
    options = parser.parse_args()
    try:
        if options.name not in BUILDERS:
            raise UserError(f"there is no data set {options.name!r}: use one of {', '.join(BUILDERS)}")
        if options.workers < 1:
            raise UserError(f"--workers={options.workers}: give 1 or more")
        prepare(BUILDERS[options.name], options.root, options.data_dir, options.workers)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on with the shards that are left", file=sys.stderr)
        sys.exit(130)


def _folder(text: str) -> Path:
    return Path(text).expanduser()


if __name__ == "__main__":
    main()
