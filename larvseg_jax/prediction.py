"""A trained model as a function from a photo to the best classes of every pixel (docs/predict.md).

predictor = Predictor.load("runs/x")                    # or a checkpoint's folder, or a .safetensors file
found = predictor(image, classes=("cat", "dog", "sofa"))
found.names[found.labels[y, x, 0]]                      # the best class of a pixel
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Array, Float, Float32, Int32, PyTree, UInt8

from data_pipelines import transforms
from larvseg_jax.errors import UserError
from larvseg_jax.interchange import SUFFIX, load_safetensors
from larvseg_jax.models.head import ClassTable
from larvseg_jax.models.segmenter import Segmenter
from larvseg_jax.models.vit import ViTConfig
from larvseg_jax.own_checkpoint import read_checkpoint
from larvseg_jax.sliding_window import cut_windows, mosaic, stitch_matrix, window_starts
from larvseg_jax.tiles import AxisTiles, axis_tiles
from larvseg_jax.top_classes import CentredTable, centre, standardised_patches, top_classes
from larvseg_jax.top_classes_memory import Plan, plan_memory
from larvseg_jax.vocabulary import LabelSet, Vocabulary

DEFAULT_MEMORY = 3 << 29
"""1.5 GiB above the weights."""

_TOP_K = 5
_COMPILING = 256 << 20  # what compiling and the libraries' own pools take, measured with a ViT-B


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How a photo becomes windows, in pixels.

    Attributes:
      scale: (long side, short side) limits of the resized photo; aspect ratio kept.
      window, stride: of the sliding window; window 0: the whole photo at once.
    """

    scale: tuple[int, int] = (2048, 512)
    window: int = 512
    stride: int = 512

    def __post_init__(self) -> None:
        if min(self.scale) < 1:
            raise UserError(f"scale is {self.scale}: give two sides in pixels, such as (2048, 512)")
        if self.window and not 0 < self.stride <= self.window:
            raise UserError(f"stride is {self.stride}: choose 1 to window = {self.window}")


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
    """The classes that compete, and their vectors."""

    label_set: LabelSet
    table: CentredTable


class Predictor:
    """A trained network and the names of its classes. Photos of one size share their compiled programs."""

    def __init__(self, params: PyTree, vit: ViTConfig, vocabulary: Vocabulary, sizes: Sizes = Sizes()) -> None:
        """Takes parameters (a nested dict), the sizes of the network, and the classes row by row."""
        self.vocabulary, self.vit, self.sizes = vocabulary, vit, sizes
        self._params = jax.device_put(params)
        self._model = Segmenter(dataclasses.replace(vit, drop_path=0.0), len(vocabulary.classes))
        self._features = jax.jit(self._window_features)
        self._competition: tuple[tuple[str, ...], _Competition] | None = None

    @classmethod
    def load(cls, path: Path | str, step: int | None = None, sizes: Sizes | None = None) -> Predictor:
        """Reads a run, a checkpoint or an exported file; no data set is needed.

        Args:
          path: folder of a run (its newest checkpoint, or that of `step`), of a checkpoint, or a .safetensors file.
          step: which checkpoint of the run.
          sizes: of photos and windows; by default those that the run was evaluated with.

        Raises:
          UserError: there is nothing of the kind, or it is damaged.
        """
        path = Path(path)
        if path.suffix == SUFFIX or path.is_file():
            if step is not None:
                raise UserError(f"{path} is one file: leave the step {step} out")
            saved = load_safetensors(path)
            told = saved.metadata
            vocabulary = Vocabulary(told.classes, told.base, told.novel, told.background)
            return cls(saved.params, told.vit, vocabulary, sizes or _sizes_of(told.settings))
        found = read_checkpoint(path, step)
        settings = found.record.settings
        vit = ViTConfig(**{key: value for key, value in settings["model"].items() if key != "gamma_init"})
        background = settings.get("vocabulary", {}).get("background", "")
        vocabulary = Vocabulary(found.record.classes, (), (), background)
        params = traverse_util.unflatten_dict(dict(found.weights.arrays), sep="/")
        return cls(params, vit, vocabulary, sizes or _sizes_of(settings))

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
        names, table = self._compete(classes)
        plan, rows, columns = self._plan(image.shape[:2], len(names), top_k, memory, probabilities)
        test_size = self._test_size(image.shape[:2])
        patches = self._patches(image, test_size, table)
        if not np.isfinite(patches).all():
            raise UserError("the features of this photo are not finite: the weights have diverged, use another step")
        found = top_classes(jnp.asarray(patches), table, rows, columns, plan)
        shown = None if found.log_sum is None else np.exp(found.scores - found.log_sum[..., None])
        return Prediction(names.names, found.labels, found.scores, shown)

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
        names, table = self._compete(classes)
        plan, _, _ = self._plan(size, len(names), top_k, memory, probabilities)
        return _COMPILING + max(plan.bytes, self._network_bytes(self._test_size(size), table))

    @property
    def weight_bytes(self) -> int:
        """Memory of the parameters and of the table of the classes that compete."""
        held = (self._params, self._competition[1].table if self._competition else ())
        return sum(x.nbytes for x in jax.tree.leaves(held))

    def _compete(self, classes: Sequence[str] | None) -> _Competition:
        """The classes chosen, their table made when the choice changes."""
        chosen = self.vocabulary.classes if classes is None else tuple(dict.fromkeys(classes))
        if len(chosen) < 2:
            raise UserError(f"{len(chosen)} class competes: scores are relative to each other, give two or more")
        if self._competition is None or self._competition[0] != chosen:
            label_set = self.vocabulary.label_set(chosen)
            self._competition = chosen, _Competition(label_set, self._table(label_set))
        return self._competition[1]

    def _table(self, label_set: LabelSet) -> CentredTable:
        rows, multiplicity = jnp.asarray(label_set.rows), jnp.asarray(label_set.multiplicity)

        @jax.jit
        def table(params: PyTree) -> ClassTable:
            made = self._model.apply({"params": params}, rows, multiplicity, method=lambda m, *a: m.head.classes(*a))
            return cast(ClassTable, made)

        return centre(table(self._params))

    def _plan(
        self, size: tuple[int, int], classes: int, top_k: int | None, memory: int, probabilities: bool
    ) -> tuple[Plan, AxisTiles, AxisTiles]:
        if top_k is None:
            top_k = min(_TOP_K, classes)
        if not 1 <= top_k <= classes:
            raise UserError(f"top_k is {top_k}: choose 1 to {classes}, the number of classes that compete")
        test_size = self._test_size(size)
        matrices = [
            stitch_matrix(length, window, stride, -(-window // self.vit.patch_size), out, padded=True)
            for length, (window, stride), out in zip(test_size, map(self._window, test_size), size, strict=True)
        ]
        rows, columns = map(axis_tiles, matrices)
        plan = plan_memory(
            rows, columns, matrices[1].shape[1], classes, top_k, memory - _COMPILING, log_sum=probabilities
        )
        return plan, rows, columns

    def _test_size(self, size: tuple[int, ...]) -> tuple[int, int]:
        """Height and width of the resized photo."""
        return transforms.resized_shape(size[0], size[1], self.sizes.scale)

    def _window(self, length: int) -> tuple[int, int]:
        """Window and stride along a side; the whole side, in whole patches, if there are no windows."""
        whole = length + -length % self.vit.patch_size
        return (self.sizes.window, self.sizes.stride) if self.sizes.window else (whole, whole)

    def _patches(
        self, image: UInt8[np.ndarray, "H W 3"], test_size: tuple[int, int], table: CentredTable
    ) -> Float32[np.ndarray, "p q d"]:
        """The mosaic of the photo's windows: standardised features on the patch grid."""
        pixels = transforms.eval_transform(image, self.sizes.scale)
        (height, stride), (width, _) = map(self._window, test_size)
        # Without windows the photo is one window of its own shape, cut as if it were as long as its longer side.
        cut = self.sizes.window or max(height, width)
        windows = cut_windows(pixels, cut, self.sizes.stride if self.sizes.window else cut)
        missing = [(0, side - has) for side, has in zip((height, width), windows.shape[1:3], strict=True)]
        windows = np.pad(windows, [(0, 0), *missing, (0, 0)])
        found = [np.asarray(self._features(self._params, window[None], table))[0] for window in windows]
        return mosaic(np.stack(found), len(window_starts(test_size[0], height, stride)))

    def _window_features(
        self, params: PyTree, windows: Float[Array, "b height width 3"], table: CentredTable
    ) -> Float[Array, "b h w d"]:
        patches = self._model.apply({"params": params}, windows, method=lambda m, x: m.head.patches(m.backbone(x)))
        return standardised_patches(cast(Array, patches), table)

    def _network_bytes(self, test_size: tuple[int, int], table: CentredTable) -> int:
        """Temporary memory of the network at one window, by the compiler's account; 0 where it gives none."""
        sides = [self._window(length)[0] for length in test_size]
        window = jax.ShapeDtypeStruct((1, *sides, 3), np.float32)
        analysis = self._features.lower(self._params, window, table).compile().memory_analysis()
        return 0 if analysis is None else analysis.temp_size_in_bytes + analysis.output_size_in_bytes


def _sizes_of(settings: Mapping[str, Any]) -> Sizes:
    """The sizes of a run's evaluation; those of the original where the file says nothing."""
    told = settings.get("eval")
    return Sizes(tuple(told["scale"]), told["window"], told["stride"]) if told else Sizes()
