"""An evaluation of a run, compiled once and used at every checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Int32, PyTree, UInt8

from data_pipelines.examples import Source
from data_pipelines.feature_files import FeatureRecords
from larvseg_jax.console import track
from larvseg_jax.devices.mesh import WHOLE, batch_sharding
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.config import EvalConfig
from larvseg_jax.evaluation.metrics import Summary
from larvseg_jax.evaluation.novel_offset import check_choice, choose_novel_offset, novel_offsets
from larvseg_jax.evaluation.path_similarity import PathSimilarity
from larvseg_jax.evaluation.photos import PatchValues, Photo, SeveralPasses, label_map, photo_values, photos_of
from larvseg_jax.evaluation.scoring import evaluate
from larvseg_jax.evaluation.search import SEARCHED_FROM, Search
from larvseg_jax.evaluation.tree_scores import TreeCounts
from larvseg_jax.methods.method import Dense, Linear, as_linear
from larvseg_jax.models.partial import StoredTokens
from larvseg_jax.vocabulary import LabelSet, Vocabulary
from larvseg_jax.vocabulary.base_novel import BaseNovel


class Evaluation(NamedTuple):
    """The scores, the label maps of the photos to be kept, by their numbers, and the offset that was chosen, if any."""

    summary: Summary
    label_maps: dict[int, Int32[np.ndarray, "_h _w"]]
    novel_offset: float | None = None

    def scalars(self) -> dict[str, float]:
        """What the metric log has of it: the means, and the offset."""
        return self.summary.scalars() | ({} if self.novel_offset is None else {"novel_offset": self.novel_offset})

    def text(self) -> str:
        """The same for the terminal."""
        chosen = "" if self.novel_offset is None else f"  novel_offset {self.novel_offset:.2f} (chosen)"
        head, *rest = self.summary.text().split("\n")
        return "\n".join([f"{head}{chosen}", *rest])


class Evaluator:
    """Parameters and memory in, scores on the evaluation's photos out.

    Attributes:
      config: how photos are segmented.
      source: the photos with their masks.
      label_set: the classes that compete.
      keep: numbers of the photos whose label maps are kept, e.g. for a report.
      stored: tokens of the photos' windows, where the scorer's method begins at tokens; None: it sees the photos.
      similarity: of the label set's columns, for the scores by it; None: without them.
      tree: zeros for these columns, for the scores by their hierarchy; None: without them.
    """

    def __init__(
        self,
        config: EvalConfig,
        source: Source,
        label_set: LabelSet,
        vocabulary: Vocabulary,
        definitions: Sequence[BaseNovel],
        scorer: Dense,
        mesh: Mesh,
        keep: Collection[int] = (),
    ) -> None:
        self.config, self.source, self.label_set, self.keep = config, source, label_set, keep
        self.stored: FeatureRecords | None = None
        self.similarity: PathSimilarity | None = None
        self.tree: TreeCounts | None = None
        self._vocabulary, self._definitions = vocabulary, definitions
        # Rivals are left to the search, in which OTHER, a column of no class, never wins.
        # So are classes that are costly to make, unless all scores are asked for.
        many = len(label_set) >= SEARCHED_FROM
        once = isinstance(scorer, Linear) and scorer.costly and not config.choose_novel_offset
        searched = label_set.rivals > 0 or (isinstance(scorer, Linear) and many) or once
        self._linear = as_linear(scorer, label_set) if searched else None
        self._vectors = gathered(self._linear.vectors, mesh) if self._linear else None
        self._patch_values = make_patch_values(self._linear.features if self._linear else scorer.scores, mesh)
        self._batch = config.batch_size + -config.batch_size % mesh.shape["data"]
        self._chosen = 0.0
        if config.choose_novel_offset:
            self._check_choice()

    @property
    def photos(self) -> int:
        """How many photos are evaluated: the first of the source."""
        return min(self.config.limit or len(self.source), len(self.source))

    def __call__(self, params: PyTree, memory: PyTree) -> Evaluation:
        """Scores the parameters."""
        values, search = self._values(params, memory)
        chosen = None
        if self.config.choose_novel_offset:
            values = SeveralPasses(values)
            self._chosen = chosen = self._choose(values)
            values.begin()
        summary, label_maps = evaluate(
            self._with_offset(values),
            self.source,
            self.label_set,
            self._vocabulary,
            self.config,
            batch=self._batch,
            definitions=self._definitions,
            keep=self.keep,
            label_map_of=search,
            stored=self.stored,
            similarity=self.similarity,
            tree=self.tree,
        )
        return Evaluation(summary, label_maps, chosen)

    def _values(self, params: PyTree, memory: PyTree) -> tuple[PatchValues, Search | None]:
        """What the network says of windows, without a chosen offset, and the search that it is for."""
        if self._vectors is None:
            return lambda w: self._patch_values(params, memory, w), None
        vectors = self._vectors(params, memory)
        return lambda w: self._patch_values(params, memory, vectors, w), Search(vectors, self.config)

    def _with_offset(self, values: PatchValues) -> PatchValues:
        """The same with the offset that was chosen last, if any."""
        offsets = novel_offsets(self.label_set.names, self._vocabulary, self._chosen)
        return (lambda w: values(w) + offsets[None, None, None]) if offsets.any() else values

    def predict(
        self, params: PyTree, memory: PyTree, images: Sequence[UInt8[np.ndarray, "_h _w 3"]]
    ) -> list[Int32[np.ndarray, "_h _w"]]:
        """The label maps of pictures as the last evaluation made them; columns of the label set, rivals as OTHER.

        The pictures go through the whole network, also where the evaluation begins at stored tokens.
        """
        config, columns = self.config, len(self.label_set)
        photos = (
            Photo(
                i,
                "",
                np.zeros(image.shape[:2], np.int32),
                config.windows.test_size(image.shape),
                list(config.windows.cut(image)),
            )
            for i, image in enumerate(images)
        )
        patch_values, search = self._values(params, memory)
        maps = (
            search(v, photo.test_size, photo.label.shape)
            if search
            else label_map(v[..., :columns], photo.test_size, photo.label.shape, config)
            for photo, v in photo_values(self._with_offset(patch_values), photos, self._batch)
        )
        return [np.minimum(found, np.int32(self.label_set.scored - 1)) for found in maps]

    def _choose(self, values: PatchValues) -> float:
        """The offset of novel scores that goes with the masks of the photos' base classes (novel_offset.py)."""
        photos = photos_of(self.source, range(self.photos), self.config, self.stored)
        found = track(photo_values(values, photos, self._batch), self.photos, "offset")
        return choose_novel_offset(found, self.label_set, self._vocabulary, self.config)

    def _check_choice(self) -> None:
        """UserError where none can be chosen: too many classes, or not both base and novel ones."""
        if self._linear is not None:
            raise UserError(
                f"a novel_offset is chosen among fewer than {SEARCHED_FROM} classes without rivals, and "
                f"{len(self.label_set):,} compete here: give a number, or evaluate on a part of them"
            )
        check_choice(self.label_set, self._vocabulary)


def gathered(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """The function compiled, what it gives whole on every device of the mesh."""
    return jax.jit(function, out_shardings=NamedSharding(mesh, WHOLE))


def make_patch_values(function: Callable[..., jax.Array], mesh: Mesh) -> Callable[..., jax.Array]:
    """`Dense.scores` or `Linear.features`, whose last argument are pictures, for NumPy's pictures (b, H, W, 3).

    Or for the tokens of pictures, `leading` and `patches`. They give (b, h, w, n) on the patch grid, float32. Only the
    classes of the scorer compete (method 10). b must be a multiple of the mesh's `data`; the values come back whole on
    every device. Of several processes each passes all pictures and gets all values; the work in between is split over
    the devices of all.
    """

    def of_windows(*arguments: Any) -> Array:
        *state, windows = arguments
        return function(*state, StoredTokens(**windows) if isinstance(windows, dict) else windows)

    def place(array: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(array.shape, batch_sharding(mesh), array.__getitem__)

    compiled = gathered(of_windows, mesh)
    return lambda *arguments: compiled(*arguments[:-1], jax.tree.map(place, arguments[-1]))
