"""A trained model as a function from a photo to the best classes of every pixel (docs/predict.md).

predictor = Predictor.load("runs/x")                    # or a checkpoint's folder, or a .safetensors file
found = predictor(image, classes=("cat", "dog", "sofa"))
found.names[found.labels[y, x, 0]]                      # the best class of a pixel
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int32, UInt8

from larvseg_jax.config import network_sections
from larvseg_jax.devices.memory import program_memory
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.sliding_window import mosaic
from larvseg_jax.evaluation.windows import Stitching, Windows
from larvseg_jax.methods.method import Vectors, as_linear
from larvseg_jax.predict.memory import Plan, plan_memory
from larvseg_jax.predict.tiles import AxisTiles, axis_tiles
from larvseg_jax.predict.top_classes import top_classes
from larvseg_jax.trained import Trained, load_trained
from larvseg_jax.vocabulary import LabelSet

DEFAULT_MEMORY = 3 << 29
"""1.5 GiB above the weights."""

_TOP_K = 5
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

    def shares(self) -> list[tuple[int, float]]:
        """The classes that are best somewhere, and their share of the pixels, the largest first."""
        best = self.labels[..., 0]
        classes, pixels = np.unique(best, return_counts=True)
        order = np.argsort(-pixels, kind="stable")
        return [(int(classes[i]), float(pixels[i]) / best.size) for i in order]


class _Competition(NamedTuple):
    """The classes that compete, their vectors, and what makes a window's features."""

    chosen: tuple[str, ...]
    label_set: LabelSet
    vectors: Vectors
    features: Any  # Linear.features, jitted


class Predictor:
    """A trained network and the names of its classes. Photos of one size share their compiled programs.

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

    @classmethod
    def load(cls, path: Path | str, step: int | None = None, windows: Windows | None = None) -> Predictor:
        """Reads a run, a checkpoint or an exported file (`trained.load_trained`); no data set is needed."""
        return cls(load_trained(path, step), windows)

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
        competition = self._compete(classes)
        names, vectors = competition.label_set.names, competition.vectors
        plan, stitching, tiles = self._plan(image.shape[:2], len(names), top_k, memory, probabilities)
        windows = self.windows.cut(image, self._patch)
        found = [np.asarray(competition.features(*self._state, vectors, w[None]))[0] for w in windows]
        patches = mosaic(np.stack(found), stitching.window_rows)
        if not np.isfinite(patches).all():
            raise UserError("the features of this photo are not finite: the weights have diverged, use another step")
        best = top_classes(jnp.asarray(patches), vectors, *tiles, plan)
        shown = None if best.log_sum is None else np.exp(best.scores - best.log_sum[..., None])
        return Prediction(names, best.labels, best.scores, shown)

    def peak_memory(
        self,
        size: tuple[int, int],
        classes: Sequence[str] | None = None,
        top_k: int | None = None,
        *,
        probabilities: bool = False,
        memory: int = DEFAULT_MEMORY,
    ) -> int:
        """Bytes above the weights that a photo of `size` (height, width) will need at most."""
        competition = self._compete(classes)
        plan, _, _ = self._plan(size, len(competition.label_set), top_k, memory, probabilities)
        return _COMPILING + max(plan.bytes, self._network_bytes(size, competition))

    @property
    def weight_bytes(self) -> int:
        """Memory of the parameters and of the table of the classes that compete."""
        held = (self._state, self._competition.vectors if self._competition else ())
        return sum(x.nbytes for x in jax.tree.leaves(held))

    def _compete(self, classes: Sequence[str] | None) -> _Competition:
        """The classes chosen, their vectors made when the choice changes."""
        chosen = self.vocabulary.classes if classes is None else tuple(dict.fromkeys(classes))
        if len(chosen) < 2:
            raise UserError(f"{len(chosen)} class competes: scores are relative to each other, give two or more")
        if self._competition is None or self._competition.chosen != chosen:
            label_set = self.vocabulary.label_set(chosen)
            scorer = as_linear(self.trained.method.scorer(label_set), label_set)
            vectors = jax.jit(scorer.vectors)(*self._state)
            self._competition = _Competition(chosen, label_set, vectors, jax.jit(scorer.features))
        return self._competition

    def _plan(
        self, size: tuple[int, int], classes: int, top_k: int | None, memory: int, probabilities: bool
    ) -> tuple[Plan, Stitching, tuple[AxisTiles, AxisTiles]]:
        if top_k is None:
            top_k = min(_TOP_K, classes)
        if not 1 <= top_k <= classes:
            raise UserError(f"top_k is {top_k}: choose 1 to {classes}, the number of classes that compete")
        test_size = self.windows.test_size(size)
        grid = tuple(-(-side // self._patch) for side in self.windows.sides(test_size, self._patch))
        stitching = self.windows.stitching(grid, test_size, size, self._patch)
        rows, columns = axis_tiles(stitching.rows), axis_tiles(stitching.columns)
        budget = memory - _COMPILING
        plan = plan_memory(rows, columns, stitching.columns.shape[1], classes, top_k, budget, log_sum=probabilities)
        return plan, stitching, (rows, columns)

    def _network_bytes(self, size: tuple[int, int], competition: _Competition) -> int:
        """Temporary memory of the network at one window, by the compiler's account; 0 where it gives none."""
        sides = self.windows.sides(self.windows.test_size(size), self._patch)
        window = jax.ShapeDtypeStruct((1, *sides, 3), np.float32)
        lowered = competition.features.lower(*self._state, competition.vectors, window)
        memory = program_memory(lowered.compile())
        return 0 if memory is None else memory.temporary + memory.output
