"""What was found in a photo, in the formats of other tools: COCO, Label Studio, polygons as in GeoJSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int64

from larvseg_jax.predict.names import FORMATS
from larvseg_jax.predict.segmentation import Segmentation

_SIZES = (3, 4, 8, 16)  # bits of a length in Label Studio's encoding
_WORD = 8  # bits of a value there


def coco(found: Segmentation, photo: str) -> dict[str, Any]:
    """A data set of one photo: every segment is an annotation, with COCO's uncompressed run lengths.

    The id of a category is the place of the class among those that competed, from 1.
    """
    height, width = found.size
    annotations = [
        {
            "id": i,
            "image_id": 1,
            "category_id": segment.label + 1,
            "segmentation": segment.rle,
            "area": segment.pixels,
            "bbox": list(segment.box),
            "iscrowd": 0,
            "score": round(segment.score, 4),
        }
        for i, segment in enumerate(found.segments, start=1)
    ]
    categories = [
        {"id": label + 1, "name": found.names[label], "supercategory": found.groups[label]}
        for label in sorted(label for label, _ in found.shares())
    ]
    images = [{"id": 1, "file_name": photo, "width": width, "height": height}]
    return {"images": images, "annotations": annotations, "categories": categories}


def label_studio(found: Segmentation, photo: str) -> list[dict[str, Any]]:
    """A task for Label Studio with a brush region for every class, to be corrected there.

    Its labelling interface is to have an Image called "image" and BrushLabels called "tag".
    """
    height, width = found.size
    runs = found.runs
    results = []
    for label, _ in found.shares():
        own = runs.label == label
        begins = runs.row[own].astype(np.int64) * width
        value = {
            "format": "rle",
            "rle": brush_runs(begins + runs.first[own], begins + runs.stop[own], height * width),
            "brushlabels": [found.names[label]],
        }
        results.append(
            {
                "id": f"class_{label}",
                "type": "brushlabels",
                "from_name": "tag",
                "to_name": "image",
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "score": round(float(found.mean_scores[label]), 4),
                "value": value,
            }
        )
    return [{"data": {"image": photo}, "predictions": [{"model_version": "larvseg_jax", "result": results}]}]


def polygons(found: Segmentation, photo: str) -> dict[str, Any]:
    """A feature for every segment, as in GeoJSON, in pixels of the photo: x to the right and y downwards."""
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]] for ring in segment.polygons]},
            "properties": segment.figures,
        }
        for segment in found.segments
    ]
    return {"type": "FeatureCollection", "photo": photo, "features": features}


EXPORTS: Mapping[str, Callable[[Segmentation, str], Any]] = dict(
    zip(FORMATS, (coco, label_studio, polygons), strict=True)
)
"""Name of a format -> (what was found, path of the photo) -> what is written as JSON."""


def brush_runs(starts: Int64[np.ndarray, " r"], stops: Int64[np.ndarray, " r"], pixels: int) -> list[int]:
    """A mask in the encoding of Label Studio's brush (the library rle-pack's; of four equal channels of 0 and 255).

    32 bits: how many values; 5 bits: bits of a value, less one; four times 4 bits: bits of a length, less one. Then
    for every run of equal values a 1, which of the four sizes its length has (2 bits), the length less one, the value.

    Args:
      starts, stops: the runs of 1 in reading order, first pixels and those after the last.
      pixels: of the mask.

    Returns:
      bytes.
    """
    ends = np.stack([starts, stops], 1).ravel()
    lengths = 4 * np.diff(ends, prepend=0, append=pixels)
    bits = [f"{4 * pixels:032b}{_WORD - 1:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    for i, length in enumerate(lengths.tolist()):
        value = "1" * _WORD if i % 2 else "0" * _WORD
        while length:
            piece = min(length, 1 << _SIZES[-1])
            which = next(k for k, size in enumerate(_SIZES) if piece <= 1 << size)
            bits.append(f"1{which:02b}{piece - 1:0{_SIZES[which]}b}{value}")
            length -= piece
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))
