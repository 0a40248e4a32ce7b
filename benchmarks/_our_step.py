"""Our side of benchmarks/vs_pytorch.py: the run, what both sides are given, our compiled step and heads."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._heads import mask_head, tag_head
from benchmarks._memory import forget_peak, peak_resident
from configs import common
from data_pipelines import transforms
from data_pipelines.rows import extent_of
from larvseg_jax import assemble
from larvseg_jax.assemble import fresh_state, lower_step
from larvseg_jax.config import Experiment, from_config
from larvseg_jax.devices.host_memory import keep_freed_pages
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.devices.sharding import path_name
from larvseg_jax.methods.larvseg.memory_bank import MemoryBank
from larvseg_jax.methods.larvseg.method import LarvSeg
from larvseg_jax.models.attention_choice import device_attention
from larvseg_jax.models.pixels import normalised_batch
from larvseg_jax.models.vit import VisionTransformer

Work = Callable[[], dict[str, Any]]
"""Does the work once -> {"seconds", "cpu" (seconds of all threads), "peak", "losses"}."""

STREAMS = ("masks", "tags")
TAGS = {
    "3 and 2 tags": ((12, 40, 99), (7, 140)),
    "10 and 8 tags": ((0, 2, 5, 12, 17, 40, 63, 99, 104, 149), (1, 3, 7, 16, 70, 88, 121, 140)),
}
OF_STEP = "10 and 8 tags"


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
    levels = {name: rng.integers(0, 256, (2, crop, crop, 3), np.uint8) for name in STREAMS}
    coarse = rng.integers(-1, 150, (2, side // 32, side // 32), dtype=np.int32)
    ca = run.settings["method"]["ca_classifier"]
    queue = rng.standard_normal((150, ca["memory_bank_size"], ca["foreground_topk"], d), np.float32)
    return {
        **{name: np.stack([transforms.normalise(x) for x in of]) for name, of in levels.items()},
        **{f"{name}_levels": of for name, of in levels.items()},
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
        size = given["masks"].shape[1]
        shared = {"valid": np.ones(2, bool), extent_of("image"): np.full((2, 2), size, np.int32)}
        host = {k: {"image": given[f"{k}_levels"], **shared} | labels[k] for k in STREAMS}
        self.batch = assemble.batch_placer(run, self.mesh)(host)
        self.features = jnp.asarray(given["features"])
        self.tags = {name: jnp.asarray(given[name]) for name in TAGS}
        self.compiled = keep_freed_pages(lower_step(run, self.mesh, self.state).compile())  # as training does
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
        images = normalised_batch(self.batch["tags"])["image"]
        backbone = jax.jit(VisionTransformer(self.run.vit, device_attention(self.run.vit, jax.devices())).apply)
        return np.asarray(backbone({"params": self.state.params["backbone"]}, images).patches)

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
