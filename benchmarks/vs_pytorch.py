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
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._heads import mask_head, tag_head
from benchmarks._memory import forget_peak, peak_resident
from configs import common
from larvseg_jax import assemble
from larvseg_jax.assemble import fresh_state, lower_step
from larvseg_jax.config import Experiment, from_config
from larvseg_jax.devices.memory import program_memory
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.devices.sharding import path_name
from larvseg_jax.methods.larvseg.memory_bank import MemoryBank
from larvseg_jax.methods.larvseg.method import LarvSeg
from larvseg_jax.models.attention_choice import device_attention
from larvseg_jax.models.vit import VisionTransformer

Work = Callable[[], dict[str, Any]]
"""Does the work once -> {"seconds", "cpu" (seconds of all threads), "peak", "losses"}."""

STREAMS = ("masks", "tags")
TAGS = {
    "3 and 2 tags": ((12, 40, 99), (7, 140)),
    "10 and 8 tags": ((0, 2, 5, 12, 17, 40, 63, 99, 104, 149), (1, 3, 7, 16, 70, 88, 121, 140)),
}
OF_STEP = "10 and 8 tags"
CPU_ATTENTION = ("scaled_dot_product_attention", "nn.MultiheadAttention")
GPU_ATTENTION = ("scaled_dot_product_attention", "scaled_dot_product_attention, torch.compile")


def experiment(dtype: str, slots: int) -> Experiment:
    """The run that both sides train."""
    config = common.get_config()
    config.class_lists.lists = ("ade20k_150",)
    config.streams.masks = common.mask_stream(class_list="ade20k_150", batch_size=2)
    config.streams.tags = common.tag_stream(class_list="ade20k_150", batch_size=2, max_labels=slots)
    config.model.dtype = dtype
    return from_config(config)


def inputs(run: Experiment) -> dict[str, np.ndarray]:
    """Pictures, labels, features of a backbone and a filled bank (vectors of unit length): random."""
    rng, crop = np.random.default_rng(0), run.streams["masks"].view.crop_size
    side, (h, w), d = run.streams["masks"].view.loss_size, run.vit.stored_grid, run.vit.width
    coarse = rng.integers(-1, 150, (2, side // 32, side // 32), dtype=np.int32)
    ca = run.settings["method"]["ca_classifier"]
    queue = rng.standard_normal((150, ca["memory_bank_size"], ca["foreground_topk"], d), np.float32)
    return {
        "masks": rng.standard_normal((2, crop, crop, 3), np.float32),
        "tags": rng.standard_normal((2, crop, crop, 3), np.float32),
        "features": rng.standard_normal((2, h, w, d), np.float32),
        "label": coarse.repeat(32, 1).repeat(32, 2),
        **{name: in_slots(tags, run.streams["tags"].view.max_labels or 0) for name, tags in TAGS.items()},
        "queue": queue / np.linalg.norm(queue, axis=-1, keepdims=True),
    }


def in_slots(tags: tuple[tuple[int, ...], ...], slots: int) -> np.ndarray:
    """The tags of each picture, the slots left over -1."""
    return np.array([[*t, *[-1] * (slots - len(t))] for t in tags], np.int32)


class Ours:
    """Our compiled step, and the two heads alone."""

    def __init__(self, run: Experiment, given: dict[str, np.ndarray]) -> None:
        self.run, self.mesh = run, make_mesh(1, 1, jax.devices()[:1])
        method = assemble.make_method(run, self.mesh)
        assert isinstance(method, LarvSeg)
        self.method, self.streams = method, {s.name: s for s in method.streams}
        self.state = fresh_state(run, self.mesh)
        slots = np.zeros(self.state.memory.slots.shape, np.float32)
        self.rows = run.catalogue.label_set(run.streams["tags"]).rows  # of the classes as PyTorch has them
        slots[self.rows] = given["queue"].mean(2)
        bank = MemoryBank.from_slots(jnp.asarray(slots))
        self.state = dataclasses.replace(self.state, memory=dataclasses.replace(bank, wraps=jnp.ones_like(bank.wraps)))
        labels = {"masks": {"label": given["label"]}, "tags": {"tags": given[OF_STEP]}}
        valid = np.ones(2, bool)
        host = {k: {"image": given[k], "valid": valid} | labels[k] for k in STREAMS}
        self.batch = assemble.batch_placer(run, self.mesh)(host)
        self.features = jnp.asarray(given["features"])
        self.tags = {name: jnp.asarray(given[name]) for name in TAGS}
        self.compiled = lower_step(run, self.mesh, self.state).compile()
        self.train_step = assemble.seeded(run, self.mesh, self.compiled)
        masks = functools.partial(mask_head, self.streams["masks"], method.config.seg_loss_mean)
        tags = functools.partial(tag_head, self.streams["tags"], method.config.ca_classifier)
        self.compiled_mask_head = jax.jit(jax.value_and_grad(masks, (0, 1)))
        self.compiled_tag_head = jax.jit(jax.value_and_grad(tags, (0, 1), has_aux=True))

    def parameters(self) -> dict[str, np.ndarray]:
        """All of them by path, classes in the order of the stream."""
        leaves = jax.tree_util.tree_leaves_with_path(self.state.params)
        named = {path_name(path): np.asarray(x) for path, x in leaves}
        return named | {"head/class_embeddings": named["head/class_embeddings"][self.rows]}

    def tag_features(self) -> np.ndarray:
        """What the backbone makes of the tagged pictures, without drop path."""
        backbone = jax.jit(VisionTransformer(self.run.vit, device_attention(self.run.vit, jax.devices())).apply)
        return np.asarray(backbone({"params": self.state.params["backbone"]}, self.batch["tags"]["image"]).patches)

    def step(self) -> list[float]:
        """One optimisation step."""
        self.state, metrics = self.train_step(self.state, self.batch)
        jax.block_until_ready(self.state)
        return [float(metrics[k]) for k in ("masks/L_seg", "tags/L_cls", "tags/L_aux")]

    def mask_head(self) -> list[float]:
        """Loss and gradients of the segmentation head from features."""
        own = self.batch["masks"]
        out = self.compiled_mask_head(self.state.params["head"], self.features, own["label"], own["valid"])
        return [float(jax.block_until_ready(out)[0])]

    def tag_head(self, tags: str) -> list[float]:
        """Losses and gradients of the image-level head from features, and the bank written."""
        out = self.compiled_tag_head(self.state.params["head"], self.features, self.state.memory, self.tags[tags])
        (_, (losses, _)), _ = jax.block_until_ready(out)
        return [float(losses[name]) for name in ("L_cls", "L_aux")]


def timed(work: Callable[[], list[float]]) -> dict[str, Any]:
    """The work with its seconds and the peak of memory."""
    on_cpu = jax.default_backend() == "cpu"
    if on_cpu:
        forget_peak()
    begin, cpu = time.perf_counter(), time.process_time()
    losses = work()
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    peak = peak_resident() if on_cpu else jax.local_devices()[0].memory_stats()["peak_bytes_in_use"]
    return {"seconds": seconds, "cpu": cpu, "peak": peak, "losses": losses}


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


def compare(title: str, works: dict[str, Work], repeats: int) -> None:
    """Runs the works in turn and prints their median seconds, ours first."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in works}
    for number in range(repeats + 1):
        for name, work in works.items():
            result = work()
            done = f"{title}, round {number} of {repeats}, {name}: {result['seconds']:.3g} s, CPU {result['cpu']:.3g} s"
            print(done, file=sys.stderr, flush=True)  # an interrupted run has told what it measured
            if number:  # the first one compiles, or fills caches
                found[name].append(result)
    print(f"\n| {title} | median s | best s | CPU s | peak memory, GB | PyTorch / ours: median, best, CPU |")
    print("|---|---|---|---|---|---|")
    ours: tuple[float, ...] = ()
    for name, results in found.items():
        seconds = [r["seconds"] for r in results]
        times = statistics.median(seconds), min(seconds), statistics.median(r["cpu"] for r in results)
        ours = ours or times
        ratios = ", ".join(f"{t / own:.2f}" for t, own in zip(times, ours, strict=True))
        peak = max(r["peak"] for r in results) / 1e9
        print(f"| {name} | " + " | ".join(f"{t:.4g}" for t in times) + f" | {peak:.2f} | {ratios} |", flush=True)


def main() -> None:
    """Prints a table for the whole step and for each head alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--torch_python", help="an interpreter with torch")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the backbone")
    parser.add_argument("--label_slots", type=int, default=96, help="max_labels of our tag stream, as in the configs")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    if jax.default_backend() != args.device:
        parser.exit(2, f"error: --device={args.device}, but JAX runs on {jax.default_backend()}\n")
    run = experiment(args.dtype, args.label_slots)
    given = inputs(run)
    ours = Ours(run, given)
    parts = ours.method.flops()
    print(f"{os.cpu_count()} cores, {jax.devices()[0].device_kind}, jax {jax.__version__}, {args.dtype}; "
          f"{sum(parts.values()) / 1e12:.2f} TFLOP a step, {args.label_slots} label slots")  # fmt: skip
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
    settings |= {
        "device": args.device,
        "dtype": args.dtype,
        "streams": STREAMS,
        "tags": tuple(TAGS),
        "of_step": OF_STEP,
    }
    settings |= {"loss_size": ours.streams["tags"].loss_size}
    with contextlib.ExitStack() as stack:
        if args.torch_python:
            arrays = given | ours.parameters() | {"settings": np.array(json.dumps(settings))}
            versions, ask = stack.enter_context(torch_process(args.torch_python, arrays))
            print(versions)
            check(ours, ask)
            for attention in GPU_ATTENTION if args.device == "gpu" else CPU_ATTENTION:
                steps[f"PyTorch, {attention}"] = functools.partial(ask, "step", attention)
            masks["PyTorch"] = functools.partial(ask, "mask_head")
            for tags, works in heads.items():
                works["PyTorch"] = functools.partial(ask, "tag_head", tags)
        else:
            print("PyTorch not installed (--torch_python=PATH)")
        for tags, works in heads.items():
            compare(f"tag head: L_cls, L_aux, {tags}", works, 3 * args.repeats)
        compare("mask head: L_seg", masks, 3 * args.repeats)
        compare(f"whole step, {OF_STEP}", {name: twice(work) for name, work in steps.items()}, args.repeats)


if __name__ == "__main__":
    main()
