"""Sliding-window inference without a full-resolution map per window (docs/method.md, section 10).

Upsampling a window's patch logits, placing it, dividing by the number of windows over each pixel and
resizing to the photo's own size are all linear, and all act on rows and columns separately: the windows
form a grid, so the number of windows over pixel (y, x) is the number over row y times that over column x.
Hence, with the patch logits of all windows laid side by side as a mosaic Z, every class's map is

    logits = A Z Bᵀ ,   A = R · diag(1 / count) · [ E_1 U | E_2 U | ... ]

for rows (U upsamples a window, E_i places window i, R resizes to the output), B likewise for columns.
NumPy on the host: it runs while the device computes the next photo's windows.
"""

from __future__ import annotations

from typing import TypeVar

import jax
import numpy as np
from jaxtyping import Float32, Int32

from larvseg_jax.models.resize import bilinear_matrix, nearest_indices

A = TypeVar("A", np.ndarray, jax.Array)

_BAND_ELEMENTS = 1 << 22  # logits at output resolution that exist at one time: 16 MiB, about a CPU cache


def window_starts(length: int, window: int, stride: int) -> tuple[int, ...]:
    """First pixel of each window along one side; the last window is shifted back to end at the border.

    A side shorter than the window has one window, at 0.
    """
    count = max(length - window + stride - 1, 0) // stride + 1
    return tuple(max(min(i * stride + window, length) - window, 0) for i in range(count))


def cut_windows(image: Float32[np.ndarray, "H W 3"], window: int, stride: int) -> Float32[np.ndarray, "n h w 3"]:
    """The windows of an image, row by row; a side shorter than the window is used as it is."""
    rows = window_starts(image.shape[0], window, stride)
    columns = window_starts(image.shape[1], window, stride)
    return np.stack([image[y : y + window, x : x + window] for y in rows for x in columns])


def mosaic(logits: Float32[A, "n h w k"], window_rows: int) -> Float32[A, "p q k"]:
    """Lays the patch logits of all windows (in `cut_windows` order) side by side: (rows*h, columns*w, k).

    Of arrays of NumPy or JAX.
    """
    n, h, w, k = logits.shape
    grid = logits.reshape(window_rows, n // window_rows, h, w, k)
    return grid.transpose(0, 2, 1, 3, 4).reshape(window_rows * h, -1, k)


def stitch_matrix(
    length_in: int, window: int, stride: int, patch_grid: int, length_out: int, *, padded: bool = False
) -> Float32[np.ndarray, "{length_out} p"]:
    """Matrix from one side of the mosaic to one side of the output: A or B above.

    Args:
      length_in: pixels of the side at test resolution.
      window, stride: in the same pixels.
      patch_grid: patches along a window; the mosaic's side is windows * patch_grid.
      length_out: pixels wanted; `length_in` for maps at test resolution.
      padded: a side shorter than the window had been padded at its end to the window's size before it went
        through the network (otherwise the network is taken to have seen it as it is).
    """
    starts = window_starts(length_in, window, stride)
    seen = min(window, length_in)
    upsample = bilinear_matrix(patch_grid, window if padded else seen)[:seen].astype(np.float64)
    placed = np.zeros((length_in, len(starts), patch_grid))
    count = np.zeros(length_in)
    for i, start in enumerate(starts):
        placed[start : start + seen, i] = upsample
        count[start : start + seen] += 1
    placed = placed.reshape(length_in, -1) / count[:, None]
    return (bilinear_matrix(length_in, length_out) @ placed).astype(np.float32)


def stitched_logits(
    patches: Float32[np.ndarray, "p q k"],
    rows: Float32[np.ndarray, "H p"],
    columns: Float32[np.ndarray, "W q"],
) -> Float32[np.ndarray, "H W k"]:
    """A Z Bᵀ for every class. Builds the whole map: for a few classes, or a band of rows."""
    p, q, k = patches.shape
    tall = (rows @ patches.reshape(p, q * k)).reshape(len(rows), q, k)
    return np.matmul(columns, tall)


def predict_label_map(
    patches: Float32[np.ndarray, "p q k"],
    rows: Float32[np.ndarray, "H p"],
    columns: Float32[np.ndarray, "W q"],
    class_block: int = 256,
) -> Int32[np.ndarray, "H W"]:
    """argmax over classes of `stitched_logits`, in memory of about 16 MiB plus the label map."""
    return best_classes(patches, rows, columns, class_block)[0]


def best_classes(
    patches: Float32[np.ndarray, "p q k"],
    rows: Float32[np.ndarray, "H p"],
    columns: Float32[np.ndarray, "W q"],
    class_block: int = 256,
) -> tuple[Int32[np.ndarray, "H W"], Float32[np.ndarray, "H W"]]:
    """The class of the highest of `stitched_logits`, and that logit.

    Walks bands of output rows and, within, blocks of classes with a running maximum. Equal logits: the
    lowest class wins.
    """
    height, width = len(rows), len(columns)
    num_classes = patches.shape[-1]
    block = min(class_block, num_classes)
    band = max(_BAND_ELEMENTS // (width * block), 1)
    blocks = [np.ascontiguousarray(patches[..., k : k + block]) for k in range(0, num_classes, block)]
    labels, highest = np.empty((height, width), np.int32), np.empty((height, width), np.float32)
    for y in range(0, height, band):
        best = np.full((len(rows[y : y + band]), width), -np.inf, np.float32)
        winner = np.zeros(best.shape, np.int32)
        for i, part in enumerate(blocks):
            logits = stitched_logits(part, rows[y : y + band], columns)
            local = logits.argmax(-1)
            value = np.take_along_axis(logits, local[..., None], -1)[..., 0]
            better = value > best
            winner[better] = local[better] + i * block
            best[better] = value[better]
        labels[y : y + band], highest[y : y + band] = winner, best
    return labels, highest


def resize_label_map(labels: Int32[np.ndarray, "h w"], height: int, width: int) -> Int32[np.ndarray, "H W"]:
    """Nearest-neighbour resize of a label map (`Original:` how published numbers reach the photo's size)."""
    rows = nearest_indices(labels.shape[0], height)
    columns = nearest_indices(labels.shape[1], width)
    return labels[rows[:, None], columns]
