"""LSeg as a method: pixel cross entropy of cosines between projected patches and frozen text vectors.

`Original:` a DPT decoder on ViT-L/16, its logits at half resolution. Here, as in the comparison of LarvSeg's Tables 1
and 3, a plain ViT and a linear projection, with logits on the patch grid.
"""

from __future__ import annotations

from typing import cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int, PyTree

from larvseg_jax.methods.lseg.options import Options
from larvseg_jax.methods.method import Batch, Images, Linear, Metrics, Seen, Task, Vectors
from larvseg_jax.methods.pixel_loss import pixel_cross_entropy
from larvseg_jax.models.attention import Attention
from larvseg_jax.models.attention_choice import device_attention
from larvseg_jax.models.cosine_head import cosine_scores, unit
from larvseg_jax.models.frozen import frozen_blocks
from larvseg_jax.models.partial import StoredTokens, backbone_from, patches_of
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.vocabulary import LabelSet


class Network(nn.Module):
    """Pictures, or the tokens that enter block `first`, to unit vectors in the space of the text."""

    vit: ViTConfig
    text_width: int
    attention: Attention = "all_heads"
    still: int = 0
    first: int = 0

    def setup(self) -> None:
        self.backbone = backbone_from(self.first, self.vit, self.attention, self.still)
        self.projection = nn.Dense(self.text_width)

    def __call__(self, seen: Seen, *, train: bool = False) -> Float[Array, "b h w e"]:
        """With train=True a "drop_path" random key is needed."""
        return unit(self.projection(patches_of(self.backbone(seen, train=train))))


class LSeg:
    """Classes are their names' vectors; a `methods.method.Method`. Its memory: the text vectors, (rows, width)."""

    def __init__(self, config: Options, task: Task) -> None:
        self.config, self.task = config, task
        still = frozen_blocks(task.backbone, task.frozen)
        self.model = Network(
            task.backbone, config.text.width, device_attention(task.backbone, task.mesh.devices.flat), still
        )
        self._of_tokens = self.model.clone(first=task.first_block)
        # A trained model brings them in its memory.
        self._text = config.text.read(task.names) if task.streams else None

    def init(self, key: Array) -> tuple[PyTree, Float[Array, "rows e"]]:
        """Fresh parameters, and the text vectors; rows that are no class hold ones."""
        side = self.task.backbone.image_size
        params = self.model.init(key, jnp.zeros((1, side, side, 3)))["params"]
        vectors = jnp.ones((self.task.rows, self.config.text.width))
        return params, vectors if self._text is None else vectors.at[: len(self._text)].set(self._text)

    def loss(
        self, params: PyTree, memory: Float[Array, "rows e"], batch: Batch, key: Array
    ) -> tuple[Float[Array, ""], tuple[Metrics, tuple[()]]]:
        """The weighted sum of the streams' L_seg: cross entropy over the labelled pixels."""
        total, metrics = jnp.zeros(()), {}
        for index, (name, stream) in enumerate(self.task.streams.items()):
            arrays = batch[name]
            seen = StoredTokens(arrays["leading"], arrays["patches"]) if self.task.first_block else arrays["image"]
            rngs = {"drop_path": jax.random.fold_in(key, index)}
            patches = self._network(seen).apply({"params": params}, seen, train=True, rngs=rngs)
            columns = stream.label_set.padded(self.task.mesh.shape["model"])
            logits = cosine_scores(cast(Array, patches), memory[jnp.asarray(columns.rows)]) / self.config.temperature
            counts = jnp.asarray(columns.multiplicity)
            loss = pixel_cross_entropy(logits, counts, arrays["label"], arrays["valid"], mean_over="valid")
            total += stream.loss.weight * loss
            metrics[f"{name}/L_seg"] = loss
        return total, (metrics, ())

    def remember(self, memory: Float[Array, "rows e"], params: PyTree, seen: tuple[()]) -> Float[Array, "rows e"]:
        """The text vectors stay."""
        return memory

    def scorer(self, label_set: LabelSet) -> Linear:
        """Cosines over the temperature."""
        rows, multiplicity = jnp.asarray(label_set.rows), jnp.asarray(label_set.multiplicity)

        def scores(params: PyTree, memory: PyTree, images: Seen) -> Float[Array, "b h w n"]:
            return cosine_scores(scaled(self.embed(params, images)), memory[rows])

        def vectors(_params: PyTree, memory: PyTree) -> Vectors:
            return Vectors(memory[rows], multiplicity, jnp.zeros(()))

        def embed(params: PyTree, _memory: PyTree, images: Seen) -> Float[Array, "b h w e"]:
            return self.embed(params, images)

        def scaled(patches: Float[Array, "*batch e"], _classes: Vectors | None = None) -> Float[Array, "*batch e"]:
            return patches / self.config.temperature

        return Linear(scores, vectors, embed, scaled, reads_memory=True)

    def embed(self, params: PyTree, images: Seen) -> Float[Array, "b h w e"]:
        """Unit patch features in the space of the text."""
        return cast(Array, self._network(images).apply({"params": params}, images))

    def _network(self, seen: Seen) -> Network:
        return self._of_tokens if isinstance(seen, StoredTokens) else self.model

    def flops(self, data: int = 1, model: int = 1) -> dict[str, int]:
        """Unknown."""
        return {}

    def figures(
        self, params: PyTree, memory: PyTree, label_set: LabelSet, windows: Images, tags: Int[Array, "1 l"]
    ) -> dict[str, Float[Array, "b h w l"]]:
        """None: there are no tags."""
        return {}
