"""Photos for the report: what the model says, and the method's own figures of each tag, such as where it looked."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import cast

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float, Int, Int32, PyTree

from data_pipelines.examples import Source
from larvseg_jax.devices.mesh import WHOLE
from larvseg_jax.evaluation.evaluator import Evaluator
from larvseg_jax.evaluation.sliding_window import mosaic, stitched_logits
from larvseg_jax.methods.method import FindsClusters, Method, NamedClusters
from larvseg_jax.report.cards import GalleryItem
from larvseg_jax.report.clusters import PhotoClusters
from larvseg_jax.vocabulary import IGNORE_LABEL, LabelSet, Vocabulary

MAPS_PER_PHOTO = 2
MAX_TAGS = 16
_LOOKED_AT = 64  # photos of a tagged source


def choose_photos(source: Source, total: int, columns: Collection[int], count: int) -> list[int]:
    """Numbers of `count` photos spread over the first `total` of a source; first those that show one of `columns`."""
    wanted = min(count, total)
    spread = np.unique(np.linspace(0, total - 1, min(4 * wanted, total)).astype(int))
    without = [not np.isin(source[int(i)]["label"], list(columns)).any() for i in spread]
    return [int(spread[i]) for i in np.argsort(without, kind="stable")[:wanted]]


def photos_by_score(photo_iou: Sequence[float], count: int) -> dict[str, list[int]]:
    """Numbers of the best, middling and worst photos, `count` of each, no two of them near each other in the set.

    Neighbours often are pictures of one scene. Photos without a score are left out.
    """
    scores = np.array(photo_iou, float)
    order = [int(i) for i in np.argsort(-scores, kind="stable") if np.isfinite(scores[i])]
    apart = max(len(scores) // 20, 1)
    middle = sorted(range(len(order)), key=lambda place: abs(2 * place - len(order)))
    ways = {"best": order, "middling": [order[place] for place in middle], "worst": order[::-1]}
    chosen: dict[str, list[int]] = {}
    taken: list[int] = []
    for name in ("best", "worst", "middling"):
        chosen[name] = []
        for number in ways[name]:
            if len(chosen[name]) < count and all(abs(number - other) > apart for other in taken):
                chosen[name].append(number)
                taken.append(number)
    return {name: chosen[name] for name in ways}


def tagged_photos(source: Source, columns: Collection[int], most: int) -> list[int]:
    """Numbers of up to `most` photos of a tagged source that show one of the columns: one of each first, then others.

    Looks at some photos, spread over the source.
    """
    spread = np.unique(np.linspace(0, len(source) - 1, min(_LOOKED_AT, len(source))).astype(int)).tolist()
    showing = {i: {int(c) for c in source[i]["tags"]} & set(columns) for i in spread}
    seen: set[int] = set()
    first, others = [], []
    for i, found in showing.items():
        if found - seen:
            first.append(i)
            seen |= found
        elif found:
            others.append(i)
    return sorted([*first, *others][:most])


def check_figures(method: Method, params: PyTree, memory: PyTree, evaluator: Evaluator) -> None:
    """UserError, before a training begins, if the method cannot make its figures of the evaluation's windows.

    Of parameters and memory only shapes are needed.
    """
    side = evaluator.config.window
    window = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
    tags = jax.ShapeDtypeStruct((1, MAX_TAGS), np.int32)
    jax.eval_shape(lambda p, m, w, t: method.figures(p, m, evaluator.label_set, w, t), params, memory, window, tags)


def make_gallery(
    method: Method,
    mesh: Mesh,
    params: PyTree,
    memory: PyTree,
    evaluator: Evaluator,
    predictions: Mapping[int, Int32[np.ndarray, "_h _w"]],
    vocabulary: Vocabulary,
) -> list[GalleryItem]:
    """The photos of `predictions` with truth, prediction and the method's figures."""
    figures = _Figures(method, mesh, params, memory, evaluator)
    items = []
    for number, prediction in predictions.items():
        photo = evaluator.source[number]
        tags = _tags_of(photo["label"], evaluator.label_set, vocabulary)
        maps = figures(photo["image"], tags)
        found = figures.clusters(photo["image"])
        items.append(GalleryItem(photo["id"], photo["image"], prediction, photo["label"], maps, clusters=found))
    return items


def make_tagged_gallery(
    method: Method,
    mesh: Mesh,
    params: PyTree,
    memory: PyTree,
    evaluator: Evaluator,
    source: Source,
    label_set: LabelSet,
    numbers: Sequence[int],
    vocabulary: Vocabulary,
) -> list[GalleryItem]:
    """Photos of a tagged source, whose columns are those of `label_set`, with prediction and the method's figures."""
    figures = _Figures(method, mesh, params, memory, evaluator)
    photos = [source[number] for number in numbers]
    predictions = evaluator.predict(params, memory, [photo["image"] for photo in photos])
    places = {name: place for place, name in enumerate(evaluator.label_set.names)}
    items = []
    for photo, prediction in zip(photos, predictions, strict=True):
        names = [label_set.names[column] for column in photo["tags"]]
        names.sort(key=lambda name: name not in vocabulary.novel)
        tags = [places[name] for name in names if name in places][:MAX_TAGS]
        maps = figures(photo["image"], tags)
        note = f"tags: {', '.join(names)}"
        found = figures.clusters(photo["image"])
        items.append(GalleryItem(photo["id"], photo["image"], prediction, None, maps, note, found))
    return items


def _tags_of(label: Int32[np.ndarray, "h w"], label_set: LabelSet, vocabulary: Vocabulary) -> list[int]:
    """Columns present in a label, novel ones first, then by size; background last, OTHER left out."""
    columns, pixels = np.unique(label[label != IGNORE_LABEL], return_counts=True)
    known = label_set.multiplicity[columns] > 0
    columns, pixels = columns[known], pixels[known]

    def rank(pair: tuple[int, int]) -> tuple[bool, bool, int]:
        name = label_set.names[pair[0]]
        return name == vocabulary.background, name not in vocabulary.novel, -pair[1]

    pairs = sorted(zip(columns.tolist(), pixels.tolist(), strict=True), key=rank)
    return [column for column, _ in pairs][:MAX_TAGS]


class _Figures:
    """The method's maps of a photo's tags, stitched from its sliding windows."""

    def __init__(self, method: Method, mesh: Mesh, params: PyTree, memory: PyTree, evaluator: Evaluator) -> None:
        self._evaluator = evaluator

        @functools.partial(jax.jit, out_shardings=NamedSharding(mesh, WHOLE))
        def figures(
            params: PyTree, memory: PyTree, windows: Float[Array, "n s s 3"], tags: Int[Array, "1 l"]
        ) -> dict[str, Float[Array, "n h w l"]]:
            return method.figures(params, memory, evaluator.label_set, windows, tags)

        self._figures = lambda windows, tags: jax.device_get(figures(params, memory, windows, tags))
        self._clusters: Callable[[np.ndarray], NamedClusters] | None = None
        if isinstance(method, FindsClusters):
            named = jax.jit(lambda p, m, windows: method.named_clusters(p, m, evaluator.label_set, windows))
            self._clusters = lambda windows: cast(NamedClusters, jax.device_get(named(params, memory, windows)))

    def __call__(self, image: np.ndarray, tags: list[int]) -> tuple[tuple[str, np.ndarray], ...]:
        """(caption, map in [0, 1]) of the first tags."""
        windows, names = self._evaluator.config.windows, self._evaluator.label_set.names
        padded = np.full((1, MAX_TAGS), IGNORE_LABEL, np.int32)
        padded[0, : len(tags)] = tags
        test_size = windows.test_size(image.shape)
        shown: list[tuple[str, np.ndarray]] = []
        for caption, maps in self._figures(windows.cut(image), padded).items():
            stitching = windows.stitching(maps.shape[1:3], test_size, test_size)
            whole = stitched_logits(mosaic(maps, stitching.window_rows), stitching.rows, stitching.columns)
            for i, tag in enumerate(tags[:MAPS_PER_PHOTO]):
                shown.append((f"{caption}: {names[tag]}", 1.0 / (1.0 + np.exp(-whole[..., i]))))
        return tuple(shown)

    def clusters(self, image: np.ndarray) -> PhotoClusters | None:
        """Those of a photo that fits into one window: of other photos each window has clusters of its own."""
        windows = self._evaluator.config.windows
        if self._clusters is None or len(cut := windows.cut(image)) > 1:
            return None
        found, test_size = self._clusters(cut), windows.test_size(image.shape)
        members = np.eye(found.classes.shape[1], dtype=np.float32)[found.clusters]
        stitching = windows.stitching(found.clusters.shape[1:], test_size, test_size)
        whole = stitched_logits(mosaic(members, stitching.window_rows), stitching.rows, stitching.columns)
        return PhotoClusters(whole.argmax(-1).astype(np.int32), np.asarray(found.classes[0], np.int32))
