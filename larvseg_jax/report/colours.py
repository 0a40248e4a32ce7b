"""Colours of classes, label maps and attention maps over photos."""

from __future__ import annotations

import functools

import matplotlib
import numpy as np
from jaxtyping import Float, Float32, Int32, UInt8

from larvseg_jax.models.resize import bilinear_matrix
from larvseg_jax.vocabulary import IGNORE_LABEL

_CHOSEN_FAR_APART = 1024  # beyond that no eye tells them apart anyway
_IGNORED = np.array([128, 128, 128], np.uint8)
_EDGE = np.array([255, 255, 255], np.uint8)


@functools.cache
def palette(num_classes: int) -> UInt8[np.ndarray, "{num_classes} 3"]:
    """RGB colour of each class: the same every time, all different (up to 30,000), far apart first.

    Each colour is the one farthest, in the perceptual space OKLab, from those before it, so that a longer
    palette begins with the shorter one.
    """
    candidates = _vivid_colours()
    lab = _oklab(candidates)
    order = [int(np.argmin(np.linalg.norm(lab - _oklab(np.array([[31, 119, 180]])), axis=-1)))]
    distance = np.full(len(candidates), np.inf)
    while len(order) < min(num_classes, _CHOSEN_FAR_APART):
        distance = np.minimum(distance, np.linalg.norm(lab - lab[order[-1]], axis=-1))
        order.append(int(distance.argmax()))
    if num_classes > len(order):
        others = np.random.default_rng(0).permutation(np.setdiff1d(np.arange(len(candidates)), order))
        order = np.resize([*order, *others], num_classes).tolist()
    colours = candidates[order]
    colours.setflags(write=False)
    return colours


def overlay(
    image: UInt8[np.ndarray, "h w 3"],
    label: Int32[np.ndarray, "h w"],
    colours: UInt8[np.ndarray, "n 3"],
    clear: int = IGNORE_LABEL,
    opacity: float = 0.6,
) -> UInt8[np.ndarray, "h w 3"]:
    """A label map over its photo, regions outlined in white.

    Pixels of class `clear` (the background) show the photo, unlabelled ones are greyed.
    """
    shade = np.where((label == IGNORE_LABEL)[..., None], _IGNORED, colours[label])
    mixed = image + np.float32(opacity) * (shade.astype(np.float32) - image)
    if clear != IGNORE_LABEL:
        mixed[label == clear] = image[label == clear]
    mixed[_edges(label)] = _EDGE
    return mixed.round().astype(np.uint8)


def heat_map(
    image: UInt8[np.ndarray, "h w 3"], attention: Float[np.ndarray, "p q"], opacity: float = 0.65
) -> UInt8[np.ndarray, "h w 3"]:
    """An attention map, values in [0, 1] on the patch grid, over its photo in grey; brighter = attended."""
    rows = bilinear_matrix(attention.shape[0], image.shape[0])
    columns = bilinear_matrix(attention.shape[1], image.shape[1])
    fine = np.clip(rows @ attention.astype(np.float32) @ columns.T, 0.0, 1.0)
    heat = 255 * matplotlib.colormaps["inferno"](fine)[..., :3]
    grey = image.astype(np.float32).mean(-1, keepdims=True)
    return (grey + opacity * (heat - grey)).round().astype(np.uint8)


def _edges(label: Int32[np.ndarray, "h w"]) -> np.ndarray:
    """True on the pixels whose right or lower neighbour has another label, (h, w)."""
    edge = np.zeros(label.shape, bool)
    edge[:, :-1] |= label[:, :-1] != label[:, 1:]
    edge[:-1] |= label[:-1] != label[1:]
    return edge


def _vivid_colours() -> UInt8[np.ndarray, "n 3"]:
    """All colours of a grid that are neither dark, pale, grey nor glaring."""
    steps = np.arange(0, 256, 7)
    rgb = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3).astype(np.uint8)
    lightness, a, b = _oklab(rgb).T
    chroma = np.hypot(a, b)
    return rgb[(lightness > 0.42) & (lightness < 0.88) & (chroma > 0.07) & (chroma < 0.22)]


def _oklab(rgb: np.ndarray) -> Float32[np.ndarray, "n 3"]:
    """sRGB 0..255 -> OKLab (Ottosson 2020), where distance is about perceived difference."""
    share = rgb / 255.0
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    cones = linear @ np.array(
        [
            [0.4122214708, 0.2119034982, 0.0883024619],
            [0.5363325363, 0.6806995451, 0.2817188376],
            [0.0514459929, 0.1073969566, 0.6299787005],
        ]
    )
    lab = np.cbrt(cones) @ np.array(
        [
            [0.2104542553, 1.9779984951, 0.0259040371],
            [0.7936177850, -2.4285922050, 0.7827717662],
            [-0.0040720468, 0.4505937099, -0.8086757660],
        ]
    )
    return lab.astype(np.float32)
