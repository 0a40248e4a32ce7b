"""The best classes of every pixel among 21,841: time and memory, against other ways to get them.

    python -m benchmarks.predict_21k --torch_python=PATH

From standardised features on the patch grid (width 768, patches of 16, windows of 512; random, smooth over
neighbouring patches) and a random table of unit class vectors to labels and scores of the best 5 at every pixel.
Each variant in a fresh process, in turn, --rounds times. Peak memory is that of the process beyond what it held
before the first computation: features, class table, libraries. The network itself is not part of it.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

T = TypeVar("T")

CLASSES, WIDTH, K = 21_841, 768, 5
DIRECT_CLASSES = 1_000  # 512 x 512 logits over all classes are 22.9 GB

# Name: size of the output, windows of 512 at test resolution.
PICTURES = {"512x512": ((512, 512), (1, 1)), "2048x1024": ((1024, 2048), (1, 2))}


def write_case(folder: Path, smoothness: int) -> None:
    """Features of both pictures and the class tables, already scaled: what every variant reads."""
    rng = np.random.default_rng(0)
    classes = rng.normal(size=(CLASSES, WIDTH)).astype(np.float32)
    classes /= np.linalg.norm(classes, axis=1, keepdims=True)
    for count in (CLASSES, DIRECT_CLASSES):
        np.save(folder / f"classes_{count}.npy", classes[:count] - classes[:count].mean(0))
    for name, (size, windows) in PICTURES.items():
        p, q = (32 * n for n in windows)
        coarse = rng.normal(size=(p // smoothness, q // smoothness, WIDTH)).astype(np.float32)
        smooth = [cv2.resize(plane, (q, p), interpolation=cv2.INTER_CUBIC) for plane in np.moveaxis(coarse, -1, 0)]
        patches = np.stack(smooth, -1)
        patches /= np.linalg.norm(patches, axis=-1, keepdims=True) / np.float32(WIDTH**0.5)  # scores of variance 1
        np.savez(folder / f"{name}.npz", patches=patches, windows=windows, size=size, k=K)


def ours(case_file: Path, class_file: Path, budget: int, log_sum: bool) -> dict:
    """larvseg_jax.top_classes."""
    import jax
    import jax.numpy as jnp

    from larvseg_jax.evaluation.search_memory import plan_memory
    from larvseg_jax.evaluation.sliding_window import stitch_matrix
    from larvseg_jax.evaluation.tiles import axis_tiles
    from larvseg_jax.evaluation.top_classes import top_classes
    from larvseg_jax.methods.method import Vectors

    case = np.load(case_file)
    vectors, patches, size = jnp.asarray(np.load(class_file)), jnp.asarray(case["patches"]), case["size"].tolist()
    table = Vectors(vectors, jnp.ones(len(vectors)), jnp.float32(0))
    jax.block_until_ready((table, patches))
    held = mebibytes()
    rows, columns = (
        axis_tiles(stitch_matrix(512 * n, 512, 512, 32, out))
        for n, out in zip(case["windows"].tolist(), size, strict=True)
    )
    plan = plan_memory(rows, columns, patches.shape[1], len(vectors), K, budget, log_sum=log_sum)
    found, seconds = timed(lambda: top_classes(patches, table, rows, columns, plan), 3)
    best = found.scores[..., 0].astype(np.float64).mean()
    measured = dict(seconds=seconds, mebibytes=mebibytes() - held, computed=plan.bytes / 2**20, version=jax.__version__)
    return measured | dict(score=float(best), labels=int(found.labels[..., 0].sum()))


def direct(case_file: Path, class_file: Path) -> dict:
    """All logits at all pixels, then top_k, in one jitted function."""
    import jax
    import jax.numpy as jnp

    from larvseg_jax.evaluation.sliding_window import stitch_matrix

    case = np.load(case_file)
    classes, patches = jnp.asarray(np.load(class_file)), jnp.asarray(case["patches"])
    matrices = [
        jnp.asarray(stitch_matrix(512 * n, 512, 512, 32, out))
        for n, out in zip(case["windows"].tolist(), case["size"].tolist(), strict=True)
    ]
    jax.block_until_ready((classes, patches))
    held = mebibytes()

    @jax.jit
    def run(patches, classes, a, b):
        logits = jnp.einsum("Hp,pqn,Wq->HWn", a, jnp.einsum("pqd,nd->pqn", patches, classes), b)
        return jax.lax.top_k(logits, K)

    (best, labels), seconds = timed(lambda: jax.block_until_ready(run(patches, classes, *matrices)), 3)
    measured = dict(seconds=seconds, mebibytes=mebibytes() - held, version=jax.__version__)
    return measured | dict(score=float(np.asarray(best[..., 0], np.float64).mean()), labels=int(labels[..., 0].sum()))


def timed(call: Callable[[], T], times: int) -> tuple[T, list[float]]:
    """The last result, and the seconds of every call; the first one compiles."""
    seconds = []
    for _ in range(times - 1):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    return call(), [*seconds, time.perf_counter() - begin]


def mebibytes() -> float:
    """Peak resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def commands(folder: Path, name: str, given: argparse.Namespace) -> dict[str, list[str]]:
    """What to run for a picture: every variant as a process of its own."""
    this = [sys.executable, "-m", "benchmarks.predict_21k", "--memory_gb", str(given.memory_gb)]
    case, few, all_classes = (str(folder / f) for f in
                              (f"{name}.npz", f"classes_{DIRECT_CLASSES}.npy", f"classes_{CLASSES}.npy"))  # fmt: skip
    commands = {
        "larvseg_jax": [*this, "--one", "ours", case, all_classes],
        f"larvseg_jax, {DIRECT_CLASSES:,} classes": [*this, "--one", "ours", case, few],
        f"direct form, {DIRECT_CLASSES:,} classes": [*this, "--one", "direct", case, few],
    }
    if name == "2048x1024":
        commands.pop(f"direct form, {DIRECT_CLASSES:,} classes")  # 8.4 GB of logits
        commands.pop(f"larvseg_jax, {DIRECT_CLASSES:,} classes")
    if given.probabilities:
        commands["larvseg_jax with logsumexp"] = [*this, "--one", "log_sum", case, all_classes]
    if given.torch_python:
        block = str(given.torch_block)
        commands["PyTorch block loop"] = [given.torch_python, "benchmarks/_predict_torch.py", case, block, all_classes]
    return commands


def measure(given: argparse.Namespace) -> Iterator[tuple[str, str, list[dict]]]:
    """(picture, variant, all its rounds so far), after every round of every variant."""
    with tempfile.TemporaryDirectory() as folder:
        write_case(Path(folder), given.smoothness)
        for name in given.pictures:
            variants = commands(Path(folder), name, given)
            runs: dict[str, list[dict]] = {variant: [] for variant in variants}
            for _ in range(given.rounds):
                for variant, command in variants.items():
                    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                    runs[variant].append(json.loads(printed.splitlines()[-1]))
                    yield name, variant, runs[variant]
            if not given.torch_python:
                print(f"{name:10} {'PyTorch block loop':28} not installed: give --torch_python")


def summary(runs: list[dict]) -> dict[str, float]:
    """Of the rounds of a variant: median seconds of first and later calls (where there are any), largest peak."""
    found = {"first s": statistics.median(run["seconds"][0] for run in runs)}
    later = [s for run in runs for s in run["seconds"][1:]]
    found |= {"later s": statistics.median(later)} if later else {}
    return found | {"peak MiB": max(run["mebibytes"] for run in runs)}


def report(name: str, variant: str, runs: list[dict]) -> None:
    """One line: seconds of the first and of later calls, peak memory, and a digest of the answer."""
    found = summary(runs)
    after = f"  later {found['later s']:7.2f} s" if "later s" in found else " " * 17
    computed = f" (computed {runs[0]['computed']:.0f})" if "computed" in runs[0] else ""
    costs = f"first {found['first s']:7.2f} s{after}  peak {found['peak MiB']:6.0f} MiB{computed}"
    print(f"{name:10} {variant:28} {costs}  mean best {runs[0]['score']:.6f}  labels {runs[0]['labels']}", flush=True)


def parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--memory_gb", type=float, default=1.5)
    parser.add_argument("--smoothness", type=int, default=4, help="patches per independent feature; 1: worst case")
    parser.add_argument("--probabilities", action="store_true", help="measure the logsumexp over all classes, too")
    parser.add_argument("--pictures", nargs="+", choices=PICTURES, default=list(PICTURES))
    parser.add_argument("--torch_python", help="a Python with PyTorch")
    parser.add_argument("--torch_block", type=int, default=256, help="classes per block of the PyTorch loop")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    return parser


def main() -> None:
    """Prints one line per picture, variant and round."""
    given = parser().parse_args()
    if given.one:
        kind, case, classes = given.one[0], Path(given.one[1]), Path(given.one[2])
        budget = int(given.memory_gb * 2**30)
        print(json.dumps(direct(case, classes) if kind == "direct" else ours(case, classes, budget, kind == "log_sum")))
        return
    for name, variant, runs in measure(given):
        report(name, variant, runs)  # after every round: that of all so far


if __name__ == "__main__":
    main()
