"""Runs golden files through this code: python -m tests.parity DIR

Every .npz and .pt file in DIR is recomputed by the functions that train and evaluate, and compared with what was
recorded from the original. Exit status 0 only if every quantity of every file is within its tolerance; 3 if nothing
failed, but there are files of kinds that this code does not have yet.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

import jax

from tests.parity.attention_cases import check_attention
from tests.parity.cel_cases import CEL_CASES
from tests.parity.clip_cases import CLIP_CASES
from tests.parity.evaluation_cases import check_metrics, check_resize_shapes, check_scores, check_slide
from tests.parity.golden import Golden
from tests.parity.head_cases import check_head_forward, check_image_loss, check_seg_loss
from tests.parity.lseg_cases import check_lseg
from tests.parity.mask_decoder_cases import MASK_DECODER_CASES
from tests.parity.mask_loss_cases import MASK_LOSS_CASES
from tests.parity.pseudo_label_cases import PSEUDO_LABEL_CASES
from tests.parity.reco_cases import RECO_CASES
from tests.parity.resnet_cases import RESNET_CASES
from tests.parity.table import Report
from tests.parity.vilseg_cases import VILSEG_CASES
from tests.parity.vit_cases import check_vit, check_vit_npz

CASES: dict[str, Callable[[Report, Golden], None]] = {
    "head_forward": check_head_forward,
    "seg_loss": check_seg_loss,
    "image_loss": check_image_loss,
    "ca_multilabel": check_attention,
    "ca_singlelabel": check_attention,
    "ca_single_image": check_attention,
    "ca_nobackground": check_attention,
    "vit_npz": check_vit_npz,  # before "vit": the first case whose name a file starts with
    "vit": check_vit,
    "metrics": check_metrics,
    "slide": check_slide,
    "resize_shapes": check_resize_shapes,
    "scores": check_scores,
    "lseg_head": check_lseg,
    **CLIP_CASES,
    **MASK_DECODER_CASES,
    **VILSEG_CASES,
    **MASK_LOSS_CASES,
    **CEL_CASES,
    **PSEUDO_LABEL_CASES,
    **RECO_CASES,
    **RESNET_CASES,
}
NOT_COVERED: tuple[str, ...] = ()
"""Kinds that nothing here computes yet."""

WEIGHTS = "vit_npz_*_weights"
"""Names of the files that another file refers to."""


def case_of(stem: str, cases: Iterable[str] = CASES) -> str | None:
    """The case a file belongs to by its name."""
    return next((case for case in cases if stem == case or stem.startswith(f"{case}_")), None)


def check_file(report: Report, path: Path) -> None:
    """Adds all quantities of one file to the report; a file that cannot be checked is a failure."""
    case = case_of(path.stem)
    if case is None:
        report.fail(f"{path.name}: no known case; known are {', '.join(CASES)}")
        return
    report.start(case, path.stem)
    start = time.monotonic()
    try:
        CASES[case](report, Golden.load(path))
    except Exception:
        report.fail(f"{path.name}: stopped\n{traceback.format_exc()}")
    print(f"{path.name}: {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """Checks one folder; returns the exit status."""
    if len(arguments) != 1:
        print("usage: python -m tests.parity DIR", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    found = sorted(p for p in (*folder.glob("*.npz"), *folder.glob("*.pt")) if not p.match(f"{WEIGHTS}.npz"))
    paths = [p for p in found if case_of(p.stem, NOT_COVERED) is None]
    if not found:
        why = "has no golden files (*.npz, *.pt)" if folder.is_dir() else "is not a folder"
        print(f"nothing checked: {folder} {why}")
        return 1
    report = Report()
    with jax.default_matmul_precision("highest"):
        for path in paths:
            check_file(report, path)
    print(report.text())
    for failure in report.failures:
        print(f"FAILED {failure}")
    for path in found:
        if path not in paths:
            print(f"NOT YET COVERED {path.name}")
    print(f"{len(paths)} files, {len(report.failures)} failures, {len(found) - len(paths)} not yet covered")
    return 1 if report.failures else 0 if paths == found else 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
