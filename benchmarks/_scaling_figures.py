"""What benchmarks/class_scaling.py does not time: the bank's bytes and exactness, and the FLOPs of a step by part."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Array, Float

from configs import c171_i21k
from larvseg_jax.assemble import lower_step, make_method, state_layout
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.methods.larvseg import flops
from larvseg_jax.methods.larvseg.ca_classifier import MinedBackground, background_scores, bank_scores, norm
from larvseg_jax.methods.larvseg.memory_bank import MemoryBank, region_features
from larvseg_jax.methods.larvseg.method import LarvSeg
from larvseg_jax.models.cosine_head import STANDARDISE_EPSILON

FLAT = 0.02
"""Standard deviation of a map before standardising under which rounding is blown up too much to compare."""


class Photos(NamedTuple):
    """Smooth unit features of images, and where each of the classes is strongest (prototypes of unit length)."""

    patches: Float[np.ndarray, "b p d"]
    prototypes: Float[np.ndarray, "l d"]


def draw_photos(rng: np.random.Generator, images: int, classes: int, side: int, width: int) -> Photos:
    """Features as a trained ViT has them: one large common part, classes in smooth areas, and noise."""
    prototypes = rng.standard_normal((classes, width))
    prototypes /= np.linalg.norm(prototypes, axis=1, keepdims=True)
    common = rng.standard_normal(width) / math.sqrt(width)
    y, x = np.mgrid[:side, :side] / side
    patches = np.empty((images, side * side, width))
    for image in range(images):
        waves = [np.cos(2 * np.pi * (rng.uniform(0, 2, 2) @ [y.ravel(), x.ravel()] + rng.random())) for _ in prototypes]
        share = np.exp(3 * np.array(waves)) / np.exp(3 * np.array(waves)).sum(0)
        contrast = rng.choice([0.1, 0.3, 0.6, 1.0])
        noise = 0.5 * rng.standard_normal((side * side, width)) / math.sqrt(width)
        patches[image] = common + contrast * share.T @ prototypes + noise
    return Photos(patches / np.linalg.norm(patches, axis=-1, keepdims=True), prototypes)


class Bank(NamedTuple):
    """The same photos' features kept in two ways."""

    vectors: Float[np.ndarray, "l m k d"]
    slots: Float[Array, "l m d"]


def fill(photos: Photos, topk: int) -> Bank:
    """One slot of every class from every photo: its K best vectors, and their mean."""
    patches = jnp.asarray(photos.patches, jnp.float32)
    scores = jnp.einsum("bpd,ld->blp", patches, jnp.asarray(photos.prototypes, jnp.float32))
    means, chosen = region_features(patches, scores, topk)
    vectors = [
        [photos.patches[b][np.asarray(chosen[b, c])] for b in range(len(patches))] for c in range(scores.shape[1])
    ]
    return Bank(np.array(vectors), means.transpose(1, 0, 2))


def maps_of_vectors(patches: Float[np.ndarray, "b p d"], bank: Bank) -> tuple[np.ndarray, np.ndarray]:
    """`Original:` cosines with all M x K vectors, averaged; all classes are tags.

    Returns the maps (b, l, p) and their standard deviation before `norm`, (b, l).
    """
    score = np.array([(patches @ vectors.reshape(-1, patches.shape[-1]).T).mean(-1) for vectors in bank.vectors])
    foreground = score.swapaxes(0, 1)
    labels = foreground.shape[1]
    others = (foreground.sum(1, keepdims=True) - foreground) / (labels - 1)
    a = foreground - others
    return (a - a.mean(-1, keepdims=True)) / np.sqrt(a.var(-1, keepdims=True) + STANDARDISE_EPSILON), a.std(-1)


def maps_of_slots(patches: Float[np.ndarray, "b p d"], bank: Bank, dtype: str) -> np.ndarray:
    """The library's maps from one mean per slot."""
    means = MemoryBank.from_slots(bank.slots.astype(dtype)).class_mean
    b, _, d = patches.shape
    nothing = MinedBackground(jnp.zeros((b, d)), jnp.zeros(b), jnp.zeros(b))
    tags = jnp.broadcast_to(means, (b, *means.shape))
    present = jnp.ones(tags.shape[:2], bool)
    pixels = jnp.asarray(patches, jnp.float32)
    s_fg = bank_scores(pixels, tags)
    return np.asarray(norm(s_fg - background_scores(pixels, s_fg, present, nothing)))


def print_bank() -> None:
    """Bytes of both layouts for each number of classes, and how far the attention maps differ."""
    m = k = 20
    d = 768
    print("\n| classes | K vectors per slot, float32, GB | slot means, float32 | slot means, 16 bits |")
    print("|---|---|---|---|")
    for n in (150, 847, 10_450, 21_841, 22_001):
        vectors, means = (4 * n * m * x * d / 1e9 for x in (k, 1))
        print(f"| {n:,} | {vectors:.2f} | {means:.3f} | {means / 2:.3f} |")
    rng = np.random.default_rng(0)
    photos = draw_photos(rng, 40 + m, 3, 32, d)
    bank = fill(photos._replace(patches=photos.patches[:m]), k)
    expected, std = maps_of_vectors(photos.patches[m:], bank)
    print(f"\nlargest difference of the attention maps of {std.size} pairs (std before norm {std.min():.4f} to "
          f"{std.max():.4f}), slot means against K vectors in float64")  # fmt: skip
    bands = [(0.0, FLAT), (FLAT, 0.04), (0.04, math.inf)]
    print("\n| bank | " + " | ".join(f"std {low} to {high}" for low, high in bands) + " |\n|---|---|---|---|")
    for dtype in ("float32", "bfloat16", "float16"):
        difference = np.abs(maps_of_slots(photos.patches[m:], bank, dtype) - expected).max(-1)
        chosen = [difference[(std > low) & (std <= high)] for low, high in bands]
        cells = (f"{d.max():.1e}, {(d <= 1e-3).sum()} of {d.size} pairs within 1e-3" for d in chosen)
        print(f"| {dtype} | " + " | ".join(cells) + " |", flush=True)


def print_flops() -> None:
    """FLOPs of a step of configs/c171_i21k.py: what 21,841 classes add, by formula and by XLA's count."""
    config: ml_collections.ConfigDict = c171_i21k.get_config()
    config.method.ca_classifier.class_block = 1 << 15  # one block, because XLA counts a loop's body once
    run = from_config(config)
    mesh = make_mesh(1, 1, jax.devices()[:1])
    method = make_method(run, mesh)
    assert isinstance(method, LarvSeg)
    sizes = dict(zip(run.streams, flops.stream_sizes(method.task, method.config, method.attends), strict=True))
    parts = flops.step_flops(run.vit, sizes.values())
    head = flops.head_flops(run.vit, sizes["imagenet"])
    found = flops.ca_classifier_flops(run.vit, sizes["imagenet"])
    total = sum(parts.values())
    shares = {
        "all of it": total,
        "backbone": sum(parts[p] for p in flops.BACKBONE),
        "image-level losses of 21,841 classes": head["class_projection"] + head["pooled_logits"],
        "   of these the class projection": head["class_projection"],
        "background mining": found["mining"],
        "tag scores and attention maps": found["tag_scores"] + found["attention_maps"],
    }
    print("\n| part of a step (8 pictures of 512 and 8 of 320) | TFLOP | share |\n|---|---|---|")
    for name, count in shares.items():
        print(f"| {name} | {count / 1e12:.4f} | {count / total:.2%} |")
    analysis = lower_step(run, mesh, state_layout(run, mesh)).cost_analysis()
    assert analysis is not None
    counted = analysis["flops"]
    # On one CPU device attention is a loop over (picture, head).
    print(f"XLA counts {counted / 1e12:.3f} TFLOP with the loop of the attention as one pass; "
          f"by formula, without attention: {(total - parts['attention']) / 1e12:.3f}")  # fmt: skip
