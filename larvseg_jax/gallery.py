"""Photos for the report: what the model says, and where it looked for which tag."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float, Int, Int32

from data_pipelines.examples import Source
from larvseg_jax.config import Experiment
from larvseg_jax.evaluation import EvalSettings, photo_windows, stitching
from larvseg_jax.models.segmenter import make_model, segment
from larvseg_jax.report import GalleryItem
from larvseg_jax.sharding import WHOLE
from larvseg_jax.sliding_window import mosaic, stitched_logits
from larvseg_jax.tag_pooling import pool_tags
from larvseg_jax.train_state import TrainState
from larvseg_jax.vocabulary import IGNORE_LABEL, LabelSet

MAPS_PER_PHOTO = 2
MAX_TAGS = 16


def choose_photos(source: Source, total: int, label_set: LabelSet, novel: Sequence[str], count: int) -> list[int]:
    """Numbers of `count` photos spread over the first `total`, those that show a novel class first."""
    wanted = min(count, total)
    spread = np.unique(np.linspace(0, total - 1, min(4 * wanted, total)).astype(int))
    chosen = set(novel)
    columns = [column for column, name in enumerate(label_set.names) if name in chosen]
    without_novel = [not np.isin(source[int(i)]["label"], columns).any() for i in spread]
    return [int(spread[i]) for i in np.argsort(without_novel, kind="stable")[:wanted]]


def make_gallery(
    run: Experiment,
    mesh: Mesh,
    state: TrainState,
    source: Source,
    label_set: LabelSet,
    settings: EvalSettings,
    predictions: Mapping[int, Int32[np.ndarray, "h w"]],
) -> list[GalleryItem]:
    """The photos of `predictions` with truth, prediction and, if the run attends, attention maps."""
    attend = _AttentionMaps(run, mesh, state, label_set, settings)
    items = []
    for number, prediction in predictions.items():
        photo = source[number]
        tags = _tags_of(photo["label"], label_set, run)
        maps = attend(photo["image"], tags) if run.attends else ()
        items.append(GalleryItem(photo["id"], photo["image"], prediction, photo["label"], maps))
    return items


def _tags_of(label: Int32[np.ndarray, "h w"], label_set: LabelSet, run: Experiment) -> list[int]:
    """Columns present in a label, novel ones first, then by size; background last."""
    columns, pixels = np.unique(label[label != IGNORE_LABEL], return_counts=True)

    def rank(pair: tuple[int, int]) -> tuple[bool, bool, int]:
        name = label_set.names[pair[0]]
        return name == run.vocabulary.background, name not in run.vocabulary.novel, -pair[1]

    pairs = sorted(zip(columns.tolist(), pixels.tolist(), strict=True), key=rank)
    return [column for column, _ in pairs][:MAX_TAGS]


class _AttentionMaps:
    """The attention maps of a photo's tags, stitched from its sliding windows."""

    def __init__(
        self, run: Experiment, mesh: Mesh, state: TrainState, label_set: LabelSet, settings: EvalSettings
    ) -> None:
        self._label_set, self._settings = label_set, settings
        model, ca = make_model(run, mesh), run.ca_classifier
        rows = jnp.asarray(label_set.rows)

        @functools.partial(jax.jit, out_shardings=NamedSharding(mesh, WHOLE))
        def attend(
            state: TrainState, windows: Float[Array, "n s s 3"], tags: Int[Array, "1 l"]
        ) -> Float[Array, "n h w l"]:
            patches, table = segment(model, state.params, windows, label_set)
            n, h, w, d = patches.shape
            tall = patches.reshape(1, n * h, w, d)  # all windows are one picture to the attention
            pooling = pool_tags(tall, table, tags, rows, state.bank, ca, (n * h, w))
            return pooling.attention[0].reshape(-1, n, h, w).transpose(1, 2, 3, 0)

        self._attend = lambda windows, tags: np.asarray(attend(state, windows, tags))

    def __call__(self, image: np.ndarray, tags: list[int]) -> tuple[tuple[str, np.ndarray], ...]:
        windows, test_size = photo_windows(image, self._settings)
        padded = np.full((1, MAX_TAGS), IGNORE_LABEL, np.int32)
        padded[0, : len(tags)] = tags
        maps = self._attend(windows, padded)
        grid_rows, rows, columns = stitching(maps.shape[1:3], test_size, test_size, self._settings)
        whole = stitched_logits(mosaic(maps, grid_rows), rows, columns)
        shown = range(min(MAPS_PER_PHOTO, len(tags)))
        return tuple((self._label_set.names[tags[i]], 1.0 / (1.0 + np.exp(-whole[..., i]))) for i in shown)
