"""What was found in a picture as HTML: the picture under its classes, with the outlines that a pointer finds; a table.

Names of classes come from models and users: whatever they are, they are text here.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from larvseg_jax.predict.segmentation import Segment
from larvseg_jax.predict.segmenter import Result
from larvseg_jax.report.colours import class_colours, overlay
from larvseg_jax.vocabulary import IGNORE_LABEL

_SIDE = 1024  # of the picture shown, pixels
_OUTLINED = 200  # segments that a pointer finds
_SMALLEST = 2e-4  # of the picture: smaller ones are hard to point at
_SLACK = 0.7  # pixels of the picture shown that an outline may be off
_LISTED = 25  # segments in the table
_EMPTY = '<div class="lv-empty">Drop a picture on the left, or take one of the examples.</div>'


def viewer(name: str, result: Result | None, photo: str, clicks: Sequence[tuple[float, float]]) -> str:
    """The picture under its classes; `viewer.js` shows name and score of the segment under the pointer.

    Args:
      name: of the model, "" if it need not be said.
      result: what was found; None: nothing yet.
      photo: `Session.token` of the picture.
      clicks: pixels (x, y) that are marked.
    """
    if result is None:
        return _EMPTY
    height, width = result.size
    factor = min(_SIDE / max(height, width), 1.0)
    outlines = "".join(_outline(segment, factor) for segment in result.segments[:_OUTLINED])
    radius = max(height, width) / 90
    marks = "".join(f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}"/>' for x, y in clicks)
    found = ", ".join(f"{result.names[label]} {100 * share:.0f} %" for label, share in result.shares()[:5])
    title = f"<figcaption>{html.escape(name)}</figcaption>" if name else ""
    ratio = f"--ratio: {width / height:.4f}"
    return (
        f'<figure class="lv-view" data-photo="{html.escape(photo)}">{title}<div class="lv-picture" style="{ratio}">'
        f'<img alt="{html.escape(found)}" src="{_jpeg(result, factor)}">'
        f'<svg viewBox="0 0 {width} {height}" preserveAspectRatio="none"><g class="lv-segments">{outlines}</g>'
        f'<g class="lv-clicks" data-radius="{radius:g}">{marks}</g></svg>'
        '<div class="lv-tip" hidden></div></div></figure>'
    )


def _jpeg(result: Result, factor: float) -> str:
    """The overlay as the address of an image, the background left clear."""
    size = max(round(result.size[1] * factor), 1), max(round(result.size[0] * factor), 1)
    image = cv2.resize(result.image, size, interpolation=cv2.INTER_AREA)
    labels = cv2.resize(result.labels, size, interpolation=cv2.INTER_NEAREST).astype(np.int32)
    clear = result.groups.index("background") if "background" in result.groups else IGNORE_LABEL
    file = io.BytesIO()
    Image.fromarray(overlay(image, labels, class_colours(result.names), clear)).save(file, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _outline(segment: Segment, factor: float) -> str:
    """A segment's outline and holes as an SVG path in the picture's pixels; "" if it is too small to be pointed at."""
    if segment.share < _SMALLEST:
        return ""
    rings = [
        cv2.approxPolyDP(np.array(ring, np.int32)[:, None], _SLACK / factor, True)[:, 0] for ring in segment.polygons
    ]
    drawn = "".join(f"M{' '.join(f'{x},{y}' for x, y in ring.tolist())}Z" for ring in rings if len(ring) > 2)
    said = f'data-name="{html.escape(segment.name)}" data-group="{_group(segment)}" data-score="{segment.score:.2f}"'
    return f'<path d="{drawn}" fill-rule="evenodd" {said}/>' if drawn else ""


def table(name: str, result: Result | None) -> str:
    """The largest segments: class, group if the model says it, share of the picture, mean score."""
    if result is None:
        return ""
    grouped = any(result.groups)
    shown = result.segments[:_LISTED]
    colours = class_colours([segment.name for segment in shown]).tolist()
    rows = [
        f'<tr><td><i style="background:rgb({red},{green},{blue})"></i>{html.escape(segment.name)}</td>'
        + (f"<td>{_group(segment)}</td>" if grouped else "")
        + f"<td>{_percent(segment.share)}</td><td>{segment.score:.2f}</td></tr>"
        for segment, (red, green, blue) in zip(shown, colours, strict=True)
    ]
    more = len(result.segments) - len(shown)
    rest = 100 * (1 - sum(segment.share for segment in shown))
    caption = f"<caption>{html.escape(name)}</caption>" if name else ""
    heads = f"<th>segment</th>{'<th>group</th>' if grouped else ''}<th>share</th><th>mean score</th>"
    last = f'<p class="lv-more">and {more} smaller ones, {rest:.1f} % together</p>' if more else ""
    return f'<table class="lv-table">{caption}<tr>{heads}</tr>{"".join(rows)}</table>{last}'


def _group(segment: Segment) -> str:
    """Of a class named "background" the group says nothing."""
    return "" if segment.group == segment.name else segment.group


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 5e-4 else "&lt; 0.1 %"


def lesson(clicks: int, pictures: int) -> str:
    """How much of the class to be taught is marked."""
    if not clicks:
        return '<p class="lv-lesson">Click on the thing in the picture; more pictures make it better.</p>'
    marked = f"{clicks} click{'s' * (clicks > 1)} in {pictures} picture{'s' * (pictures > 1)}"
    return f'<p class="lv-lesson"><b>{marked}</b>: add some in another picture, or give it a name.</p>'
