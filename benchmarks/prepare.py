"""What preparing ImageNet-21K takes: pictures per second and memory as the data set grows, with 1 and 2 processes.

    python -m benchmarks.prepare [--folder=DIR] [--processes=1,2] [--repeats=2]

Made synsets of generated pictures, eight of them and so two shards, in a temporary folder (in --folder) that needs
2 GB: small pictures, and pictures of ImageNet's sizes and bytes, as archives and as folders. `larvseg prepare` is
run as people do, and looked at from outside: seconds of the whole command, the best of --repeats, processor time,
and the peak of resident memory of its processes. The pictures come from the system's file cache, not from the disk.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import itertools
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2

from benchmarks._memory import family, peak_resident
from benchmarks._pictures import draw_pictures
from data_pipelines.decode import decode_image
from larvseg_jax.vocabulary.class_lists import class_list

SYNSETS = 8
"""Of a tree: the fewest that become two shards, so that these are as large as they can be."""
DRAWN = 48
WHOLE = 14_197_122
"""Pictures of the release of fall 2011."""


@dataclasses.dataclass(frozen=True)
class Tree:
    """A made download: so many pictures, of 64 x 48 pixels or of ImageNet's sizes, in archives or in folders."""

    pictures: int
    large: bool = False
    archives: bool = True

    @property
    def kind(self) -> tuple[bool, bool]:
        """What trees of several sizes have in common."""
        return self.large, self.archives


TREES = (
    *(Tree(pictures) for pictures in (1_000, 4_000, 16_000)),
    *(Tree(pictures, large=True) for pictures in (2_000, 8_000)),
    *(Tree(pictures, large=True, archives=False) for pictures in (2_000, 8_000)),
)


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of a preparation: seconds, of all cores together, and bytes of its largest process and of all of them."""

    seconds: float
    processor: float
    largest: int
    together: int


def pictures(large: bool) -> list[bytes]:
    """JPEG files that take turns."""
    drawn = [photo for photo, _ in draw_pictures("I21K", DRAWN)]
    if large:
        return drawn
    small = (cv2.resize(decode_image(photo, "drawn"), (64, 48)) for photo in drawn)
    return [cv2.imencode(".jpg", photo)[1].tobytes() for photo in small]


def write_tree(root: Path, tree: Tree, files: Sequence[bytes]) -> int:
    """Writes a made download, its pictures dealt to the first synsets of the list; how many bytes its pictures have."""
    root.mkdir()
    written = 0
    turns = itertools.cycle(files)
    for number, wnid in enumerate(class_list("imagenet_21k").ids[:SYNSETS]):
        count = len(range(number, tree.pictures, SYNSETS))
        named = [(f"{wnid}_{i}.JPEG", next(turns)) for i in range(count)]
        written += sum(len(data) for _, data in named)
        if tree.archives:
            _write_archive(root / f"{wnid}.tar", named)
        else:
            (root / wnid).mkdir()
            for name, data in named:
                (root / wnid / name).write_bytes(data)
    return written


def _write_archive(path: Path, named: Sequence[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in named:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def measure(download: Path, data_root: Path, processes: int) -> Cost:
    """Prepares the download and removes what was made."""
    command = [sys.executable, "-m", "data_pipelines.prepare", "imagenet_21k", f"--from={download}"]
    command += [f"--data_root={data_root}", f"--workers={processes}"]
    before, begin = _processor_seconds(), time.perf_counter()
    peaks: dict[int, int] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        while child.poll() is None:
            for pid in family(child.pid):
                try:
                    peaks[pid] = peak_resident(pid)
                except OSError:  # it has ended
                    continue
            time.sleep(0.05)
        seconds = time.perf_counter() - begin
    if child.returncode:
        raise SystemExit(f"error: {' '.join(command)} ended with {child.returncode}")
    shutil.rmtree(data_root)
    return Cost(seconds, _processor_seconds() - before, max(peaks.values()), sum(peaks.values()))


def _processor_seconds() -> float:
    """Of all processes that this one has started, and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class Rate(NamedTuple):
    """Between two trees of a kind: pictures/s, and processor seconds a picture."""

    less: Tree
    more: Tree
    processes: int
    pictures: float
    processor: float


def beyond_the_start(costs: dict[tuple[Tree, int], Cost]) -> Iterator[Rate]:
    """What the largest trees of a kind take more than the ones before: imports and starting processes are in both."""
    for tree, processes in costs:
        same = sorted((t for t, n in costs if t.kind == tree.kind and n == processes), key=lambda t: t.pictures)
        if len(same) > 1 and tree == same[-1]:
            smaller = same[-2]
            less, more, count = costs[smaller, processes], costs[tree, processes], tree.pictures - smaller.pictures
            rate, processor = count / (more.seconds - less.seconds), (more.processor - less.processor) / count
            yield Rate(smaller, tree, processes, rate, processor)


def print_costs(parent: Path | None, counts: Sequence[int], repeats: int) -> dict[tuple[Tree, int], Cost]:
    """Makes the trees, one after the other, and prints the first table: the best of `repeats`."""
    files = {large: pictures(large) for large in (False, True)}
    costs: dict[tuple[Tree, int], Cost] = {}
    print("| pictures | kB each | in | processes | s | pictures/s | cores busy | largest process | all processes |")
    print("|---|---|---|---|---|---|---|---|---|")
    for tree in TREES:
        with tempfile.TemporaryDirectory(dir=parent) as folder:
            root = Path(folder, "download")
            kilobytes = write_tree(root, tree, files[tree.large]) / tree.pictures / 1e3
            for processes in counts:
                found = [measure(root, Path(folder, "data"), processes) for _ in range(repeats)]
                best = costs[tree, processes] = min(found, key=lambda cost: cost.seconds)
                cells = [
                    f"{tree.pictures:,} | {kilobytes:.1f} | {'archives' if tree.archives else 'folders'} | {processes}",
                    f"{best.seconds:.1f} | {tree.pictures / best.seconds:,.0f} | {best.processor / best.seconds:.2f}",
                    f"{best.largest / 1e6:.0f} MB | {best.together / 1e6:.0f} MB",
                ]
                print(f"| {' | '.join(cells)} |", flush=True)
    return costs


def print_rates(costs: dict[tuple[Tree, int], Cost]) -> None:
    """The second table: speed without the start, and what it means for the whole of ImageNet-21K."""
    print(f"\n| from, to pictures | processes | pictures/s | CPU ms a picture | {WHOLE:,} pictures take |")
    print("|---|---|---|---|---|")
    for rate in beyond_the_start(costs):
        between = f"{rate.less.pictures:,} to {rate.more.pictures:,} {_kind(rate.more)}"
        hours = WHOLE / rate.pictures / 3600
        print(f"| {between} | {rate.processes} | {rate.pictures:,.0f} | {1e3 * rate.processor:.2f} | {hours:.1f} h |")


def _kind(tree: Tree) -> str:
    return f"{'ImageNet-sized' if tree.large else 'small'} in {'archives' if tree.archives else 'folders'}"


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, help="where the temporary folder is made; made itself, if it is not there"
    )
    parser.add_argument("--processes", default="1,2", help="numbers of processes, such as 1,2,4")
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    counts = [int(count) for count in args.processes.split(",")]
    if args.folder is not None:
        args.folder.mkdir(parents=True, exist_ok=True)
    print(f"{os.cpu_count()} cores, {len(os.sched_getaffinity(0))} of them for this process\n")
    print_rates(print_costs(args.folder, counts, args.repeats))


if __name__ == "__main__":
    main()
