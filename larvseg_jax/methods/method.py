"""What every method of learning to segment is to the rest of the house: these seven functions and nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int, PyTree

from data_pipelines.views import View
from larvseg_jax.models.partial import StoredTokens
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.vocabulary import LabelSet, Vocabulary

Batch = Mapping[str, Mapping[str, jax.Array]]
"""Stream -> array -> values of a step: what `view.spec()` says, and `valid`, False for rows that only fill up.
Methods see all pictures normalised (`models.pixels.normalised_batch`)."""

Metrics = dict[str, Float[Array, ""]]
"""Scalars to log. "<stream>/L_<name>" is drawn as a loss; "ready/<what>" is a share of one, shown until it is 1: a loss
that is 0 before is none yet."""

Images = Float[Array, "b height width 3"]

Seen = Images | StoredTokens
"""Pictures; where the task has a first block, also the tokens that enter it."""


class StreamTask(NamedTuple):
    """A stream as the method sees it: the classes it knows, the shape of its rows, the method's own options of it."""

    label_set: LabelSet
    view: View
    loss: Any
    batch_size: int


@dataclasses.dataclass(frozen=True)
class Task:
    """What a method is made for.

    Attributes:
      rows: of every table that has a row for each class: the classes, filled up as the mesh asks for.
      backbone: sizes of the vision transformer.
      streams: what it learns from; none where it only predicts.
      mesh: the devices, axes `data` and `model`.
      names: of the classes, row by row; none where a method needs none.
      frozen: regular expression on the paths of parameters that do not move ("": all do). What is frozen from the
        first layer on does the same at every step: no drop path.
      first_block: the block of the backbone that batches begin at: instead of `image` they hold `leading` and
        `patches`, the tokens that enter it (models/partial.py); 0: they hold pictures. A method that cannot begin
        there raises UserError.
    """

    rows: int
    backbone: ViTConfig
    streams: Mapping[str, StreamTask]
    mesh: Mesh
    names: tuple[str, ...] = ()
    frozen: str = ""
    first_block: int = 0

    @property
    def classes(self) -> int:
        """How many classes there are, of the rows."""
        return len(self.names) or self.rows


class Vectors(NamedTuple):
    """The competing classes of a linear scorer: score[n] = features . vectors[n] + offset.

    Attributes:
      vectors: one per class.
      multiplicity: how many equal columns each stands for; 0 never wins.
      offset: the same for all classes.
      scale: whatever `Linear.scale` needs besides.
      common: what was taken off every vector (`evaluation.top_classes.centred`), if anything: its product with the
        features is part of every score.
    """

    vectors: Float[Array, "n d"]
    multiplicity: Float[Array, " n"]
    offset: Float[Array, ""]
    scale: PyTree = ()
    common: Float[Array, " d"] | None = None


@dataclasses.dataclass(frozen=True)
class Dense:
    """How a method scores the classes of a label set.

    Attributes:
      scores: (params, memory, windows) -> scores on the patch grid, or on a finer one of the whole window; the highest
        wins.
      reads_memory: whether the memory matters; else it may be None.
    """

    scores: Callable[[PyTree, PyTree, Seen], Float[Array, "b h w n"]]
    reads_memory: bool = dataclasses.field(default=False, kw_only=True)


@dataclasses.dataclass(frozen=True)
class Linear(Dense):
    """The same where scores are products of features and class vectors: the best of very many are found exactly.

    Attributes:
      vectors: (params, memory) -> the competing classes.
      embed: (params, memory, windows) -> what the network makes of the patches, whichever classes compete.
      scale: (patches, classes) -> their features, where these depend on the classes.
      costly: the classes' vectors take long: an evaluation makes them once, not for every batch of windows.
    """

    vectors: Callable[[PyTree, PyTree], Vectors]
    embed: Callable[[PyTree, PyTree, Seen], Float[Array, "b h w d"]]
    scale: Callable[[Float[Array, "*batch d"], Vectors], Float[Array, "*batch d"]] = lambda patches, _classes: patches
    costly: bool = dataclasses.field(default=False, kw_only=True)

    def features(self, params: PyTree, memory: PyTree, classes: Vectors, images: Seen) -> Float[Array, "b h w d"]:
        """Features of the patches, whose products with the classes' vectors are the scores but for the offset."""
        return self.scale(self.embed(params, memory, images), classes)


def grid_of(
    embed: Callable[[PyTree, PyTree, Seen], Array], params: PyTree, memory: PyTree, sides: tuple[int, int]
) -> tuple[int, int]:
    """Rows and columns of what `Dense.scores` or `Linear.embed`, best compiled, says of a window of `sides` pixels."""
    window = jax.ShapeDtypeStruct((1, *sides, 3), np.float32)
    _, height, width, _ = jax.eval_shape(embed, params, memory, window).shape
    return height, width


def as_linear(scorer: Dense, label_set: LabelSet) -> Linear:
    """Any scorer as a linear one: its scores are the features, and the vectors the identity."""
    if isinstance(scorer, Linear):
        return scorer
    multiplicity = jnp.asarray(label_set.multiplicity)

    def vectors(_params: PyTree, _memory: PyTree) -> Vectors:
        return Vectors(jnp.eye(len(label_set)), multiplicity, jnp.zeros(()))

    return Linear(scorer.scores, vectors, scorer.scores, reads_memory=scorer.reads_memory)


def with_offsets(scorer: Dense, offsets: Float32[np.ndarray, " n"]) -> Dense:
    """The same scorer with a constant added to the scores of each class of its label set; `Linear` stays so."""

    def scores(params: PyTree, memory: PyTree, images: Seen) -> Float[Array, "b h w n"]:
        return scorer.scores(params, memory, images) + offsets[None, None, None]

    if not isinstance(scorer, Linear):
        return Dense(scores, reads_memory=scorer.reads_memory)

    def vectors(params: PyTree, memory: PyTree) -> Vectors:
        """One column more, for which every feature has a 1."""
        own = scorer.vectors(params, memory)
        return own._replace(vectors=jnp.concatenate([own.vectors, jnp.asarray(offsets)[:, None]], axis=1))

    def scale(patches: Float[Array, "*batch d"], classes: Vectors) -> Float[Array, "*batch d_1"]:
        features = scorer.scale(patches, classes._replace(vectors=classes.vectors[:, :-1]))
        return jnp.concatenate([features, jnp.ones_like(features[..., :1])], axis=-1)

    return Linear(scores, vectors, scorer.embed, scale, reads_memory=scorer.reads_memory, costly=scorer.costly)


@runtime_checkable
class Method(Protocol):
    """A way to learn to segment: its state, what a step minimises, how it scores classes."""

    def init(self, key: Array) -> tuple[PyTree, PyTree]:
        """Fresh (params, memory); also called under eval_shape. Memory: any pytree, () for none."""
        ...

    def loss(self, params: PyTree, memory: PyTree, batch: Batch, key: Array) -> tuple[Array, tuple[Metrics, PyTree]]:
        """What the step minimises, and besides: (metrics, what `remember` needs to have seen). Pure."""
        ...

    def remember(self, memory: PyTree, params: PyTree, seen: PyTree) -> PyTree:
        """The memory after the step: a bank is written, a teacher follows. `params` are the updated ones."""
        ...

    def scorer(self, label_set: LabelSet) -> Dense:
        """How it scores the classes of a label set; a `Linear` where it can be.

        It takes pictures and, where the task has a first block, the tokens that enter it.
        """
        ...

    def embed(self, params: PyTree, images: Seen) -> Float[Array, "b h w d"]:
        """Unit patch features, which know nothing of classes."""
        ...

    def flops(self, data: int = 1, model: int = 1) -> dict[str, int]:
        """Model FLOPs of a step by part, of one chip among `data` x `model`; {} = unknown."""
        ...

    def figures(
        self, params: PyTree, memory: PyTree, label_set: LabelSet, windows: Images, tags: Int[Array, "1 l"]
    ) -> dict[str, Float[Array, "b h w l"]]:
        """Maps of a photo's tags on the patch grid of its windows, by caption, for the report; {} = none.

        Shown through a sigmoid. Slots without a tag hold -1; their maps are not shown.
        """
        ...


@runtime_checkable
class MethodConfig(Protocol):
    """The method's section of a config: a dataclass of options that makes the method."""

    def loss_options(self, view: type) -> type:
        """The dataclass of what a stream with such a view has of this method; UserError if it is of no use."""
        ...

    def make(self, task: Task) -> Method:
        """The method for a task."""
        ...


@runtime_checkable
class ReadsText(Protocol):
    """A method whose classes are words: any name is a class, without training."""

    def text_vectors(self, params: PyTree, names: tuple[str, ...], templates: str = "") -> Float[Array, "n d"]:
        """Unit vectors of classes, as its scorer has them; `templates` as text/prompts.py has it, "": its own."""
        ...

    def image_vectors(self, params: PyTree, images: Seen) -> Float[Array, "b d"]:
        """Unit vectors of whole pictures, as the training compares them with captions."""
        ...

    def caption_vectors(self, params: PyTree, ids: Int[Array, "m l"]) -> Float[Array, "m d"]:
        """Unit vectors of captions by the ids of its tokenizer, likewise."""
        ...

    def logit_scale(self, params: PyTree) -> Float[Array, ""]:
        """What the training multiplies their cosines with; 100 in the published models of CLIP."""
        ...


class Reader(NamedTuple):
    """A trained model that compares pictures with words: its method, its parameters, its pictures' network."""

    method: ReadsText
    params: PyTree
    vit: ViTConfig


@runtime_checkable
class Consults(Protocol):
    """A method whose scores may need a second trained model."""

    @property
    def consulted(self) -> str:
        """The run or the file of that model; "" for none."""
        ...

    def with_reader(self, reader: Reader, memory: PyTree, vocabulary: Vocabulary) -> tuple[Method, PyTree]:
        """The method that asks it, and the memory for its scores, in which the reader's parameters are."""
        ...


@runtime_checkable
class Proposes(Protocol):
    """A method that cuts pictures into regions before it asks which classes these have."""

    def proposals(self, params: PyTree, memory: PyTree, images: Seen) -> Float[Array, "b q h w"]:
        """Logits of the masks of q regions of each picture, on a grid over the whole of it."""
        ...


@runtime_checkable
class Teachable(Protocol):
    """A method whose trained models can be given classes without training: a class is a direction of patch features."""

    def with_row(
        self, params: PyTree, memory: PyTree | None, vector: Float32[np.ndarray, " d"]
    ) -> tuple[PyTree, PyTree | None]:
        """Parameters and memory with one more class, the last, of a vector's direction; UserError if that fails."""
        ...

    def without_row(self, params: PyTree, memory: PyTree | None, row: int) -> tuple[PyTree, PyTree | None]:
        """Parameters and memory without the class of a row."""
        ...


@runtime_checkable
class Watched(Protocol):
    """A method that can tell from its metrics that a training goes wrong although it runs."""

    def symptoms(self, metrics: Mapping[str, float]) -> list[str]:
        """What the metrics of a step show to be wrong, a line each with what usually helps; [] if nothing."""
        ...


class NamedClusters(NamedTuple):
    """Clusters of windows and their classes.

    Attributes:
      clusters: of each patch.
      classes: of each cluster of a window, by the label set; -1: the cluster has no patches.
    """

    clusters: Int[Array, "b h w"]
    classes: Int[Array, "b c"]


@runtime_checkable
class FindsClusters(Protocol):
    """A method that puts the patches of a window into clusters, each of which then gets a class."""

    def named_clusters(self, params: PyTree, memory: PyTree, label_set: LabelSet, windows: Images) -> NamedClusters:
        """The clusters of windows, and which class of the label set each of them is."""
        ...
