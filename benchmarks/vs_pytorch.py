"""One training step, ours and a plain PyTorch one of the same model, in turn on the same machine.

    python -m benchmarks.vs_pytorch --torch_python=PATH [--repeats=5]
    python -m benchmarks.vs_pytorch --torch_python=PATH --device=gpu [--dtype=bfloat16]

ViT-B/16 at 512 pixels, two pictures with masks and two with tags, 150 classes, CA-Classifier with a warm bank of
20 x 20, SGD with momentum. Photos of ADE20K show 10.5 classes on average (Zhou et al., IJCV 2019), so the step has
10 and 8 tags; the tag head is timed with 3 and 2, too, because PyTorch loops over them.

PyTorch needs an environment of its own (python -m venv DIR; DIR/bin/pip install torch numpy):
benchmarks/_torch_original.py, whose losses and features are compared with ours first. Peak memory is that of the
process on a CPU, that of the allocator on a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks._our_step import OF_STEP, STREAMS, TAGS, Ours, Work, experiment, inputs, timed
from larvseg_jax.devices.host_memory import use_one_heap
from larvseg_jax.devices.memory import program_memory

CPU_ATTENTION = ("scaled_dot_product_attention", "nn.MultiheadAttention")
GPU_ATTENTION = ("scaled_dot_product_attention", "scaled_dot_product_attention, torch.compile")


@contextlib.contextmanager
def torch_process(
    python: str, arrays: dict[str, Any], module: str = "benchmarks._torch_original"
) -> Iterator[tuple[str, Callable[..., dict[str, Any]]]]:
    """(versions, ask) of a module with PyTorch under another interpreter; ask(work, *arguments)."""
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder, "given.npz"), **arrays)
        command = [python, "-m", module, f"{folder}/given.npz"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            to_child, answers = child.stdin, child.stdout

            def answer() -> dict[str, Any]:
                line = answers.readline()
                if not line:
                    raise SystemExit(f"error: {python} stopped: it needs torch and NumPy")
                return json.loads(line)

            def ask(work: str, *arguments: str) -> dict[str, Any]:
                print(json.dumps({"work": work, "arguments": arguments}), file=to_child, flush=True)
                return answer()

            yield answer()["versions"], ask
            to_child.close()


def check(ours: Ours, ask: Callable[..., dict[str, Any]]) -> None:
    """Prints how far the two implementations agree before anything is trained."""
    with tempfile.TemporaryDirectory() as folder:
        ask("check", f"{folder}/features.npy")
        theirs = np.load(f"{folder}/features.npy")
    mine = ours.tag_features().reshape(theirs.shape)
    print(f"features: largest difference {np.abs(mine - theirs).max():.1e}, largest value {np.abs(mine).max():.1f}")
    print(f"L_seg: ours {ours.mask_head()}, PyTorch {ask('mask_head')['losses']}")
    for tags in TAGS:
        print(f"L_cls, L_aux, {tags}: ours {ours.tag_head(tags)}, PyTorch {ask('tag_head', tags)['losses']}")


def twice(work: Work) -> Work:
    """The work done two times in a row, the second one counts: as in training, memory is at hand.

    In turn with another process that needs gigabytes, a virtual machine takes freed memory back in between.
    """
    return lambda: (work(), work())[1]


def measure(title: str, works: dict[str, Work], repeats: int) -> dict[str, list[dict[str, Any]]]:
    """What each work found in `repeats` rounds, in turn, after one that does not count."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in works}
    for number in range(repeats + 1):
        for name, work in works.items():
            result = work()
            done = f"{title}, round {number} of {repeats}, {name}: {result['seconds']:.3g} s, CPU {result['cpu']:.3g} s"
            print(done, file=sys.stderr, flush=True)  # an interrupted run has told what it measured
            if number:  # the first one compiles, or fills caches
                found[name].append(result)
    return found


class Summary(NamedTuple):
    """Of the rounds of one work: seconds, processor seconds, bytes."""

    median: float
    best: float
    cpu: float
    peak: float

    @classmethod
    def of(cls, results: list[dict[str, Any]]) -> Summary:
        seconds = [r["seconds"] for r in results]
        cpu = statistics.median(r["cpu"] for r in results)
        return cls(statistics.median(seconds), min(seconds), cpu, max(r["peak"] for r in results))


def compare(title: str, works: dict[str, Work], repeats: int) -> None:
    """Runs the works in turn and prints their median seconds, ours first."""
    found = {name: Summary.of(results) for name, results in measure(title, works, repeats).items()}
    print(f"\n| {title} | median s | best s | CPU s | peak memory, GB | PyTorch / ours: median, best, CPU |")
    print("|---|---|---|---|---|---|")
    ours = next(iter(found.values()))
    for name, own in found.items():
        ratios = ", ".join(f"{t / o:.2f}" for t, o in zip(own[:3], ours[:3], strict=True))
        times = " | ".join(f"{t:.4g}" for t in own[:3])
        print(f"| {name} | {times} | {own.peak / 1e9:.2f} | {ratios} |", flush=True)


class Comparison(NamedTuple):
    """Works that do the same, ours first, and how often each is done."""

    title: str
    works: dict[str, Work]
    repeats: int


@contextlib.contextmanager
def comparisons(dtype: str, label_slots: int, torch_python: str | None, repeats: int) -> Iterator[list[Comparison]]:
    """The heads and the whole step, on the device that JAX has; prints what is compared. Without PyTorch ours alone."""
    run = experiment(dtype, label_slots)
    given = inputs(run)
    ours = Ours(run, given)
    parts, device = ours.method.flops(), jax.default_backend()
    print(f"{os.cpu_count()} cores, {jax.devices()[0].device_kind}, jax {jax.__version__}, {dtype}; "
          f"{sum(parts.values()) / 1e12:.2f} TFLOP a step, {label_slots} label slots")  # fmt: skip
    memory = program_memory(ours.compiled)
    assert memory is not None
    print(f"our step: arguments {memory.arguments / 1e9:.2f} GB, temporary "
          f"{memory.temporary / 1e9:.2f} GB")  # fmt: skip
    steps: dict[str, Work] = {"larvseg_jax": lambda: timed(ours.step)}
    masks: dict[str, Work] = {"larvseg_jax": lambda: timed(ours.mask_head)}
    heads: dict[str, dict[str, Work]] = {
        tags: {"larvseg_jax": functools.partial(timed, functools.partial(ours.tag_head, tags))} for tags in TAGS
    }
    settings = dataclasses.asdict(run.vit) | dataclasses.asdict(ours.method.config.ca_classifier)
    settings |= {"device": device, "dtype": dtype, "streams": STREAMS, "tags": tuple(TAGS), "of_step": OF_STEP}
    settings |= {"loss_size": ours.streams["tags"].loss_size}
    with contextlib.ExitStack() as stack:
        if torch_python:
            arrays = given | ours.parameters() | {"settings": np.array(json.dumps(settings))}
            versions, ask = stack.enter_context(torch_process(torch_python, arrays))
            print(versions)
            check(ours, ask)
            for attention in GPU_ATTENTION if device == "gpu" else CPU_ATTENTION:
                steps[f"PyTorch, {attention}"] = functools.partial(ask, "step", attention)
            masks["PyTorch"] = functools.partial(ask, "mask_head")
            for tags, works in heads.items():
                works["PyTorch"] = functools.partial(ask, "tag_head", tags)
        else:
            print("PyTorch not installed (--torch_python=PATH)")
        yield [
            *(Comparison(f"tag head: L_cls, L_aux, {tags}", works, 3 * repeats) for tags, works in heads.items()),
            Comparison("mask head: L_seg", masks, 3 * repeats),
            Comparison(f"whole step, {OF_STEP}", {name: twice(work) for name, work in steps.items()}, repeats),
        ]


def main() -> None:
    """Prints a table for the whole step and for each head alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--torch_python", help="an interpreter with torch")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the backbone")
    parser.add_argument("--label_slots", type=int, default=96, help="max_labels of our tag stream, as in the configs")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    use_one_heap()
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    if jax.default_backend() != args.device:
        parser.exit(2, f"error: --device={args.device}, but JAX runs on {jax.default_backend()}\n")
    with comparisons(args.dtype, args.label_slots, args.torch_python, args.repeats) as made:
        for comparison in made:
            compare(*comparison)


if __name__ == "__main__":
    main()
