"""Colours of classes, label maps and attention maps over photos."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import matplotlib
import numpy as np
from jaxtyping import Float, Int32, UInt8

from larvseg_jax.models.resize import bilinear_matrix
from larvseg_jax.vocabulary import IGNORE_LABEL

_HUES, _LIGHTNESS, _CHROMA = 30, (0.48, 0.59, 0.70, 0.81), (0.17, 0.10)
_SALT = 3486  # of many the one that puts the classes of PASCAL VOC, Cityscapes and the quickstart farthest apart
_CONES_OF_LAB = np.array(
    [
        [1, 0.3963377774, 0.2158037573],
        [1, -0.1055613458, -0.0638541728],
        [1, -0.0894841775, -1.2914855480],
    ]
)
_LINEAR_OF_CONES = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)
_IGNORED = np.array([128, 128, 128], np.uint8)
_EDGE = np.array([255, 255, 255], np.uint8)


def class_colours(names: Sequence[str]) -> UInt8[np.ndarray, "n 3"]:
    """RGB colour of each class, a function of its name alone: the same in every picture, report and model.

    A hash of the name chooses one of 30 hues, four lightnesses and two chromas; lightnesses of neighbouring hues are
    half a step apart, so that no two neighbours are equally light. Hardly any two of some hundred names have the same
    colour, but some come near each other: pictures also name their classes.
    """
    numbers = np.array([_number(name) for name in names], np.uint64).astype(np.int64)
    numbers, hue = np.divmod(numbers, _HUES)
    numbers, level = np.divmod(numbers, len(_LIGHTNESS))
    numbers, strength = np.divmod(numbers, len(_CHROMA))
    shift = numbers % 1000 / 1000 - 0.5  # a quarter of a hue to both sides: hardly seen, but no two are equal
    angle = 2 * np.pi * (hue + shift / 2) / _HUES
    lightness = np.array(_LIGHTNESS)[level] + hue % 2 * (_LIGHTNESS[1] - _LIGHTNESS[0]) / 2
    chroma = np.array(_CHROMA)[strength]
    while (beyond := ~_on_screen(rgb := _srgb(lightness, chroma, angle))).any():
        chroma = np.where(beyond, chroma - 0.005, chroma)  # to the strongest that a screen has
    return (255 * rgb.clip(0, 1)).round().astype(np.uint8)


def _number(name: str) -> int:
    digest = hashlib.sha256(f"{_SALT}{name}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:7], "big")


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


def _srgb(
    lightness: Float[np.ndarray, " n"], chroma: Float[np.ndarray, " n"], angle: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n 3"]:
    """OKLab (Ottosson 2020), where distance is about perceived difference -> sRGB; outside of 0..1 no screen has it."""
    lab = np.stack([lightness, chroma * np.cos(angle), chroma * np.sin(angle)], -1)
    linear = (lab @ _CONES_OF_LAB.T) ** 3 @ _LINEAR_OF_CONES.T
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055)


def _on_screen(rgb: Float[np.ndarray, "n 3"]) -> np.ndarray:
    return np.asarray(((rgb >= -1e-6) & (rgb <= 1 + 1e-6)).all(-1))
