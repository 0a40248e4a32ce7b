"""Images per second and core of the input pipeline, beside the same augmentations written plainly.

    python -m benchmarks.input_pipeline [--photos=DIR] [--torchvision_python=PATH]

From the bytes of the files to a batch, one process, no reading from disk: of 8-bit levels, which the
device normalises, by ours and by "mmcv style, levels", of float32 pixels by all others. Every pipeline
gets the same pictures and the same random numbers (ratio, crop, flip, which distortions), in turn: the
best processor time of --repeats, mean over --rounds draws. torchvision needs an environment of its own:
python -m venv DIR; DIR/bin/pip install torch torchvision torchcodec pillow numpy
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import functools
import json
import os
import pickle
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
import simplejpeg

from benchmarks import _plain_pipelines
from benchmarks._laps import Laps
from benchmarks._our_pipeline import Round, Speed, our_rounds, our_stages, our_stream, speed
from benchmarks._pictures import SETTINGS, Picture, draw_pictures, read_pictures
from larvseg_jax.errors import UserError

OURS = "larvseg_jax"
STAGES = ("decode photo", "decode mask", "map mask", "resize photo", "resize mask", "crop", "flip", "distort",
          "normalise", "pad", "stack", "other")  # fmt: skip


def plain_rounds(augment: Callable, pictures: dict[str, list[Picture]], batch_size: int) -> Round:
    """One of the plain pipelines, rows stacked by NumPy."""

    def one_round(name: str, number: int) -> dict[str, Any]:
        settings, given = SETTINGS[name], pictures[name]
        generators = [np.random.default_rng([number, i]) for i in range(len(given))]
        laps, begin, cpu = Laps(), time.perf_counter(), time.process_time()
        for first in range(0, len(given), batch_size):
            laps.start()
            rows = []
            for i, picture in enumerate(given[first : first + batch_size], first):
                rows.append(augment(picture, settings, generators[i], laps))
            np.stack([image for image, _ in rows])
            if settings.masks:
                np.stack([label for _, label in rows])
            laps("stack")
        return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - begin, "stages": laps.seconds}

    return one_round


@contextlib.contextmanager
def torchvision_rounds(
    python: str | None, pictures: dict[str, list[Picture]], batch_size: int
) -> Iterator[tuple[str, dict[str, Round]]]:
    """(versions, pipelines) by another interpreter; ("not installed", {}) without one."""
    if not python:
        yield "torchvision not installed (--torchvision_python=PATH)", {}
        return
    given = {name: {"settings": dataclasses.asdict(SETTINGS[name]), "pictures": pictures[name]} for name in pictures}
    with tempfile.NamedTemporaryFile() as file:
        pickle.dump(given | {"batch": batch_size}, file)
        file.flush()
        command = [python, "-m", "benchmarks._torchvision_pipelines", file.name]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            ask, answers = child.stdin, child.stdout

            def answer() -> dict[str, Any]:
                line = answers.readline()
                if not line:
                    raise SystemExit(f"error: {python} stopped: it needs torch, torchvision, Pillow and NumPy")
                return json.loads(line)

            def rounds(variant: str) -> Round:
                def one_round(name: str, number: int) -> dict[str, Any]:
                    print(json.dumps({"stream": name, "variant": variant, "round": number}), file=ask, flush=True)
                    return answer()

                return one_round

            known = answer()
            yield known["versions"], {variant: rounds(variant) for variant in known["variants"]}
            ask.close()


def measure(name: str, pipelines: dict[str, Round], rounds: int, repeats: int) -> dict[str, dict[str, float]]:
    """Seconds of one pass, {pipeline: {"cpu", "wall", stages}}: best of `repeats`, mean over `rounds` random draws.

    The pipelines take turns, so that what else the machine does meets all of them.
    """
    found: dict[str, dict[str, float]] = {pipeline: collections.defaultdict(float) for pipeline in pipelines}
    for number in range(rounds):
        best: dict[str, dict[str, Any]] = {}
        for _ in range(repeats):
            for pipeline, one_round in pipelines.items():
                result = one_round(name, number)
                if pipeline not in best or result["cpu"] < best[pipeline]["cpu"]:
                    best[pipeline] = result
        for pipeline, result in best.items():
            times = {"cpu": result["cpu"], "wall": result["wall"], **result.get("stages", {})}
            for key, seconds in times.items():
                found[pipeline][key] += seconds / rounds
    return found


def compare(name: str, pipelines: dict[str, Round], images: int, rounds: int, repeats: int) -> None:
    """Prints the table of one stream."""
    found = measure(name, pipelines, rounds, repeats)
    print("\n| pipeline | CPU ms per image | images/s per core | wall ms per image | larvseg_jax is faster by |")
    print("|---|---|---|---|---|")
    for pipeline, times in found.items():
        cpu, wall = times["cpu"] / images, times["wall"] / images
        ratio = times["cpu"] / found[OURS]["cpu"]
        print(f"| {pipeline} | {1e3 * cpu:.2f} | {1 / cpu:.0f} | {1e3 * wall:.2f} | {ratio:.2f} |", flush=True)


def least_decoding(pictures: list[Picture], repeats: int) -> float:
    """CPU milliseconds per image of decoding to an eighth of the size: all bits are read, hardly a pixel is made."""
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        for photo, _ in pictures:
            simplejpeg.decode_jpeg(photo, min_height=1, min_width=1, min_factor=8)
        times.append(time.process_time() - begin)
    return 1e3 * min(times) / len(pictures)


def show_stages(name: str, pipelines: dict[str, Round], images: int, rounds: int, repeats: int) -> None:
    """Prints CPU milliseconds per image of every stage."""
    found = measure(name, pipelines, rounds, repeats)
    print("\n| CPU ms per image | " + " | ".join(pipelines) + " |")
    print("|---" * (len(pipelines) + 1) + "|")
    for stage in STAGES:
        times = [1e3 * found[pipeline].get(stage, 0.0) / images for pipeline in pipelines]
        if any(times):
            print(f"| {stage} | " + " | ".join(f"{t:.2f}" if t else "–" for t in times) + " |", flush=True)


def show_scaling(name: str, pictures: list[Picture], batch_size: int, rounds: int) -> None:
    """Prints our images per second of wall time with Grain's threads and with worker processes."""
    stream, batches = our_stream(name, pictures, batch_size), 24
    cores = os.cpu_count() or 1
    counts = sorted({1, 2, max(1, cores // 2), cores})
    workers = [(0, 0), *((n, 0) for n in counts), *((0, n) for n in counts)]
    found: dict[tuple[int, int], list[Speed]] = {w: [] for w in workers}
    for _ in range(rounds):
        for w in workers:
            found[w].append(speed(stream, batches, *w))
    print("\n| workers | images/s | cores used | CPU ms per image |\n|---|---|---|---|")
    for threads, processes in workers:
        kind = f"threads: {threads}" if threads else f"processes: {processes}" if processes else "none, in the caller"
        best = max(found[threads, processes], key=lambda s: s.images_per_second)
        known = "– | –" if processes else f"{best.cores_used:.2f} | {1e3 * best.cpu_per_image:.2f}"
        print(f"| {kind} | {best.images_per_second:.0f} | {known} |", flush=True)


def main() -> None:
    """Prints the tables of both streams."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of JPEG files instead of generated pictures")
    parser.add_argument("--torchvision_python", help="an interpreter with torch and torchvision")
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--scaling_rounds", type=int, default=3, help="0: no table of threads and processes")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    try:
        pictures = {
            name: read_pictures(args.photos, name, args.images) if args.photos else draw_pictures(name, args.images)
            for name in SETTINGS
        }
    except UserError as error:
        parser.exit(2, f"error: {error}\n")
    ours = our_rounds(pictures, args.batch)
    with torchvision_rounds(args.torchvision_python, pictures, args.batch) as (versions, others):
        print(f"{os.cpu_count()} cores, OpenCV {cv2.__version__}, NumPy {np.__version__}, Pillow {PIL.__version__}, "
              f"{versions}")  # fmt: skip
        plain = {
            "Pillow and NumPy": plain_rounds(_plain_pipelines.pillow_numpy, pictures, args.batch),
            "mmcv style": plain_rounds(_plain_pipelines.mmcv_style, pictures, args.batch),
            "mmcv style, levels": plain_rounds(
                functools.partial(_plain_pipelines.mmcv_style, normalise=False), pictures, args.batch
            ),
        } | others
        for name, given in pictures.items():
            photo = statistics.mean(len(p[0]) for p in given)
            print(f"\n{name}: {len(given)} pictures, {photo / 1e3:.0f} kB each, batches of {args.batch}")
            least = least_decoding(given, args.repeats)
            print(f"Huffman decoding, which every decoder has to do: {least:.2f} ms per image (1/8 of the size)")
            compare(name, {OURS: ours} | plain, len(given), args.rounds, args.repeats)
            show_stages(name, {OURS: our_stages(ours)} | plain, len(given), 2, args.repeats)
            if args.scaling_rounds:
                show_scaling(name, given, args.batch, args.scaling_rounds)


if __name__ == "__main__":
    main()
