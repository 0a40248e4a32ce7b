"""A trained model as a function from a photo to the best classes of every pixel (docs/predict.md).

predictor = Predictor.load("runs/x")                    # or a checkpoint's folder, or a .safetensors file
found = predictor(image, classes=("cat", "dog", "sofa"))
found.names[found.labels[y, x, 0]]                      # the best class of a pixel
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float32, Int32, UInt8

from larvseg_jax.config import network_sections
from larvseg_jax.devices.memory import program_memory
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.search_memory import Plan, plan_memory
from larvseg_jax.evaluation.sliding_window import mosaic
from larvseg_jax.evaluation.tiles import AxisTiles, axis_tiles, rounded_up
from larvseg_jax.evaluation.top_classes import centred, top_classes
from larvseg_jax.evaluation.windows import Windows
from larvseg_jax.methods.method import Linear, Vectors, as_linear, grid_of
from larvseg_jax.predict.classes import check_several
from larvseg_jax.trained import Trained, load_trained
from larvseg_jax.vocabulary import LabelSet

DEFAULT_MEMORY = 3 << 29
"""1.5 GiB above the weights."""

_TOP_K = 5
_STRIP = 128 << 20  # bytes of best classes and scores that `strips` holds at a time
_BAND_PIXELS = 1 << 18  # about so many are searched at a time
_FEW_PATCHES = 2  # a photo of fewer along a side is hardly seen
# Sizes of the search are multiples of these, so that photos of many sizes share compiled programs. Of 15 usual sizes of
# photos 11 programs are left, and tiles take 2.4 times a photo's pixels; as they are, 15 and 2.1; by 16, 9 and 3.6.
_SLAB = 8  # rows of patches
_ROUND = 8  # tiles, and the samples of each
_COMPILING = 256 << 20  # what compiling and the libraries' own pools take, measured with a ViT-B


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The best classes of every pixel of a photo, best first.

    Attributes:
      names: the classes that competed.
      labels: indices into `names`; of equal scores the lowest index comes first.
      scores: standardised logits.
      probabilities: softmax over the classes that competed; None unless asked for.
    """

    names: tuple[str, ...]
    labels: Int32[np.ndarray, "H W k"]
    scores: Float32[np.ndarray, "H W k"]
    probabilities: Float32[np.ndarray, "H W k"] | None


class _Competition(NamedTuple):
    """The classes that compete, their vectors, and what makes a window's features."""

    chosen: tuple[str, ...]
    label_set: LabelSet
    vectors: Vectors
    embed: Any  # Linear.embed, jitted
    scale: Any  # Linear.scale, jitted


class _Search(NamedTuple):
    """How the best classes of a photo are looked for; `bands` of its rows of tiles make a strip."""

    competition: _Competition
    plan: Plan
    window_rows: int
    rows: AxisTiles
    columns: AxisTiles
    bands: int

    def strips(self) -> Iterator[AxisTiles]:
        """The rows of tiles, some at a time, counted from the first of them."""
        for start in range(0, len(self.rows.first), self.bands):
            part = AxisTiles(*(array[start : start + self.bands] for array in self.rows))
            yield part._replace(first=part.first - part.first[0], last=part.last - part.first[0])

    def found(self, patches: Float32[np.ndarray, "p q d"], rows: AxisTiles) -> Prediction:
        """The best classes in some rows of tiles."""
        best = top_classes(patches, self.competition.vectors, rows, self.columns, self.plan)
        shown = None if best.log_sum is None else np.exp(best.scores - best.log_sum[..., None])
        return Prediction(self.competition.label_set.names, best.labels, best.scores, shown)


class Predictor:
    """A trained network and the names of its classes. Photos of about one size share their compiled programs.

    Attributes:
      trained: the model.
      windows: how photos are resized and cut; by default as the model was evaluated.
    """

    def __init__(self, trained: Trained, windows: Windows | None = None) -> None:
        self.trained, self.windows = trained, windows or trained.windows
        self.vocabulary = trained.vocabulary
        self._state = trained.params, trained.memory
        self._patch = network_sections(trained.settings)[1].patch_size
        self._competition: _Competition | None = None
        self._embed: Any = None  # jitted, so that another choice of classes does not compile the network anew

    @classmethod
    def load(
        cls,
        path: Path | str,
        step: int | None = None,
        windows: Windows | None = None,
        pretrained: Path | str | None = None,
    ) -> Predictor:
        """Reads a run, a checkpoint or an exported file (`trained.load_trained`); no data set is needed."""
        return cls(load_trained(path, step, pretrained=pretrained), windows)

    def __call__(
        self,
        image: UInt8[np.ndarray, "H W 3"],
        classes: Sequence[str] | None = None,
        top_k: int | None = None,
        *,
        probabilities: bool = False,
        memory: int = DEFAULT_MEMORY,
    ) -> Prediction:
        """The best classes of every pixel of an RGB photo, at its own size.

        Args:
          image: RGB.
          classes: names of the classes that compete, as in training; None: all of them. The scores are
            standardised over these.
          top_k: how many classes per pixel; None: 5, or all that compete if they are fewer.
          probabilities: softmax over all that compete, too; takes much longer with many classes.
          memory: bytes above the weights that may be in use at a time.

        Raises:
          UserError: an unknown class (with close ones), too few classes, too little memory, weights that diverged.
        """
        search = self._search(image.shape[:2], classes, top_k, memory, probabilities)
        return search.found(self._patches(image, search), search.rows)

    def strips(
        self,
        image: UInt8[np.ndarray, "H W 3"],
        classes: Sequence[str] | None = None,
        top_k: int | None = None,
        *,
        probabilities: bool = False,
        memory: int = DEFAULT_MEMORY,
    ) -> Iterator[Prediction]:
        """The same from top to bottom, some rows at a time, for photos whose `Prediction` would not fit the memory."""
        search = self._search(image.shape[:2], classes, top_k, memory, probabilities, strips=True)
        patches = self._patches(image, search)
        return (search.found(patches, rows) for rows in search.strips())

    def _patches(self, image: UInt8[np.ndarray, "H W 3"], search: _Search) -> Float32[np.ndarray, "p q d"]:
        """The features of the patches of a photo; UserError if the network gives no numbers."""
        competition = search.competition
        windows = self.windows.cut(image, self._patch)
        found = [competition.scale(competition.embed(*self._state, w[None]), competition.vectors)[0] for w in windows]
        patches = mosaic(np.stack([np.asarray(part) for part in found]), search.window_rows)
        if not np.isfinite(patches).all():
            raise UserError("the features of this photo are not finite: the weights have diverged, use another step")
        return patches

    def remark(self, size: tuple[int, int]) -> str:
        """What to know of a photo of `size` (height, width) of which the network sees hardly anything; "" of others."""
        height, width = self.windows.test_size(size)
        if min(height, width) >= _FEW_PATCHES * self._patch or min(height, width) >= min(size):
            return ""
        return (
            f"is {size[1]} x {size[0]} pixels and is seen at {width} x {height}, under {_FEW_PATCHES} patches of "
            f"{self._patch}: cut it into parts, or give another scale"
        )

    def peak_memory(
        self,
        size: tuple[int, int],
        classes: Sequence[str] | None = None,
        top_k: int | None = None,
        *,
        probabilities: bool = False,
        memory: int = DEFAULT_MEMORY,
        strips: bool = False,
    ) -> int:
        """Bytes above the weights that a photo of `size` (height, width) will need at most, whole or in `strips`."""
        search = self._search(size, classes, top_k, memory, probabilities, strips=strips)
        return _COMPILING + max(search.plan.bytes, self._network_bytes(size, search.competition))

    @property
    def weight_bytes(self) -> int:
        """Memory of the parameters and of the table of the classes that compete."""
        held = (self._state, self._competition.vectors if self._competition else ())
        return sum(x.nbytes for x in jax.tree.leaves(held))

    def _compete(self, classes: Sequence[str] | None) -> _Competition:
        """The classes chosen, their vectors made when the choice changes."""
        chosen = self.vocabulary.classes if classes is None else tuple(dict.fromkeys(classes))
        check_several(chosen)
        if self._competition is None or self._competition.chosen != chosen:
            label_set = self.vocabulary.label_set(chosen)
            own = self.trained.scorer(label_set)
            scorer = as_linear(own, label_set)
            vectors = jax.jit(lambda *state: centred(scorer.vectors(*state)))(*self._state)
            if self._embed is None or not isinstance(
                own, Linear
            ):  # which makes the same of the patches for all classes
                self._embed = jax.jit(scorer.embed)
            self._competition = _Competition(chosen, label_set, vectors, self._embed, jax.jit(scorer.scale))
        return self._competition

    def _search(
        self,
        size: tuple[int, int],
        names: Sequence[str] | None,
        top_k: int | None,
        memory: int,
        probabilities: bool,
        *,
        strips: bool = False,
    ) -> _Search:
        competition = self._compete(names)
        classes = len(competition.label_set)
        if top_k is None:
            top_k = min(_TOP_K, classes)
        if not 1 <= top_k <= classes:
            raise UserError(f"top_k is {top_k}: choose 1 to {classes}, the number of classes that compete")
        test_size = self.windows.test_size(size)
        grid = grid_of(competition.embed, *self._state, self.windows.sides(test_size, self._patch))
        stitching = self.windows.stitching(grid, test_size, size, self._patch)
        # A band of tiles is as wide as the photo: that of a wide one is made lower.
        longest = min(max(_BAND_PIXELS // size[1], 8), 64)
        rows = rounded_up(axis_tiles(stitching.rows, longest=longest), length=_ROUND, few=2)
        columns = rounded_up(axis_tiles(stitching.columns), count=_ROUND, length=_ROUND, few=2)
        row_bytes = size[1] * (8 * top_k + 4 * probabilities)
        bands = max(_STRIP // (row_bytes * rows.weights.shape[1]), 1) if strips else len(rows.first)
        held = min(bands * rows.weights.shape[1], size[0])
        patch_columns = stitching.columns.shape[1]
        plan = plan_memory(
            rows,
            columns,
            patch_columns,
            classes,
            top_k,
            memory,
            log_sum=probabilities,
            held=held,
            few=_SLAB,
            set_aside=_COMPILING,
        )
        search = _Search(competition, plan, stitching.window_rows, rows, columns, bands)
        needed = max(len(np.unique(strip.sources)) for strip in search.strips())  # patch rows of a strip
        needed += -needed % _SLAB
        return search._replace(plan=dataclasses.replace(plan, slab_rows=min(plan.slab_rows, needed)))

    def _network_bytes(self, size: tuple[int, int], competition: _Competition) -> int:
        """Temporary memory of the network at one window, by the compiler's account; 0 where it gives none."""
        sides = self.windows.sides(self.windows.test_size(size), self._patch)
        window = jax.ShapeDtypeStruct((1, *sides, 3), np.float32)
        lowered = competition.embed.lower(*self._state, window)
        memory = program_memory(lowered.compile())
        return 0 if memory is None else memory.temporary + memory.output
