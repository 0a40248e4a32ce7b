"""CEL as a method: L = 2 L_class + 5 L_ce + 5 L_dice + L_rank (Eq. 8), and pixels by their proposals' classes (Eq. 4).

Classes are frozen vectors of their names; those without masks ("unseen", here: novel) are learnt from tags alone.
"""

from __future__ import annotations

import copy
from typing import cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from larvseg_jax.errors import UserError
from larvseg_jax.methods.cel.ensemble import Advised, Ensemble
from larvseg_jax.methods.cel.inference import semantic_scores
from larvseg_jax.methods.cel.network import Network, Proposed
from larvseg_jax.methods.cel.options import Options
from larvseg_jax.methods.cel.supervision import Labels, losses_of
from larvseg_jax.methods.method import Batch, Dense, Images, Metrics, Reader, Seen, Task
from larvseg_jax.methods.pixel_loss import NEVER
from larvseg_jax.models.attention_choice import device_attention
from larvseg_jax.models.cosine_head import cosine_scores, unit
from larvseg_jax.models.frozen import frozen_blocks
from larvseg_jax.models.partial import StoredTokens
from larvseg_jax.vocabulary import LabelSet, Vocabulary


class Cel:
    """Segments by proposals whose classes are text vectors; a `methods.method.Method`.

    Its memory: the text vectors, (rows, width); where it asks a CLIP (`Consults`), `Advised`.
    """

    def __init__(self, config: Options, task: Task) -> None:
        self.config, self.task = config, task
        self._ensemble: Ensemble | None = None
        if task.streams and self.consulted:
            raise UserError(
                "method.ensemble is for evaluations of what is trained: set ensemble.kind to none in a training, and "
                "give it to evaluate.py --config (docs/cel.md)"
            )
        resnet = config.resnet if config.backbone == "resnet" else None
        if resnet and task.first_block:
            raise UserError(
                "cached features are of the ViT, and method.backbone is a ResNet: leave config.features away"
            )
        if resnet and (pixels := task.backbone.pixels) != "imagenet":
            raise UserError(f"model.pixels is {pixels}, and a ResNet knows ImageNet's: set model.pixels to imagenet")
        self.network = Network(
            task.backbone,
            config.decoder,
            config.text.width,
            device_attention(task.backbone, task.mesh.devices.flat),
            frozen_blocks(task.backbone, task.frozen),
            resnet=resnet,
        )
        # A trained model brings them in its memory.
        self._text = config.text.read(task.names) if task.streams else None

    def init(self, key: Array) -> tuple[PyTree, Float[Array, "rows e"]]:
        """Fresh parameters, and the text vectors; rows that are no class hold ones."""
        side = self.task.backbone.image_size
        params = self.network.init(key, jnp.zeros((1, side, side, 3)))["params"]
        vectors = jnp.ones((self.task.rows, self.config.text.width))
        return params, vectors if self._text is None else vectors.at[: len(self._text)].set(self._text)

    def loss(
        self, params: PyTree, memory: Float[Array, "rows e"], batch: Batch, key: Array
    ) -> tuple[Float[Array, ""], tuple[Metrics, tuple[()]]]:
        """The weighted sum of the streams' L (Eq. 8), summed over the decoder's outputs.

        Logged are the losses of the last output, and the share of its matched queries whose best class is their label.
        """
        total, metrics = jnp.zeros(()), cast(Metrics, {})
        for index, (name, stream) in enumerate(self.task.streams.items()):
            arrays, own = batch[name], jax.random.fold_in(key, index)
            seen = StoredTokens(arrays["leading"], arrays["patches"]) if self.task.first_block else arrays["image"]
            labels = Labels(arrays["label"], arrays["tags"], arrays["valid"])
            text = memory[jnp.asarray(stream.label_set.rows)]
            proposed = self._proposed(params, seen, jax.random.fold_in(own, 0))
            found = losses_of(proposed, text, params["background"], labels, jax.random.fold_in(own, 1), self.config)
            total += stream.loss.weight * found.total(self.config)
            last = {"L_class": found.classes, "L_ce": found.masks.ce, "L_dice": found.masks.dice}
            last |= {"L_rank": found.rank} if self.config.rank.weight else {}
            metrics |= {f"{name}/{of}": values[-1] for of, values in (last | {"named": found.named}).items()}
        return total, (metrics, ())

    def remember(self, memory: Float[Array, "rows e"], params: PyTree, seen: tuple[()]) -> Float[Array, "rows e"]:
        """The text vectors stay."""
        return memory

    @property
    def consulted(self) -> str:
        """The CLIP of the ensemble."""
        return "" if self.config.ensemble.kind == "none" else self.config.ensemble.clip

    def with_reader(
        self, reader: Reader, memory: Float[Array, "rows e"], vocabulary: Vocabulary
    ) -> tuple[Cel, Advised]:
        """The method whose scores are those of the ensemble."""
        advised = copy.copy(self)
        advised._ensemble = Ensemble(self.config.ensemble, reader, vocabulary)
        return advised, advised._ensemble.memory(memory, reader, vocabulary)

    def scorer(self, label_set: LabelSet) -> Dense:
        """sum_q p_q(c) sigmoid(M_q) (Eq. 4) on the mask grid, which is finer than the patch grid.

        `Paper:` resizes the masks' logits to the size of the photo; here the sums are resized.
        """
        rows, known = jnp.asarray(label_set.rows), jnp.asarray(label_set.multiplicity) > 0
        of_ensemble = self._ensemble.scorer(label_set) if self._ensemble else None

        def scores(params: PyTree, memory: PyTree, images: Seen) -> Float[Array, "b h w n"]:
            last = self.last_proposals(params, images)
            text = memory.text if of_ensemble else memory
            own = self._probabilities(params, last.vectors[0], text[rows], known)
            if of_ensemble is None:
                return semantic_scores(own, last.masks[0])
            return of_ensemble(memory, own, last.masks[0], cast(Array, images))

        return Dense(scores, reads_memory=True)

    def _probabilities(
        self, params: PyTree, vectors: Float[Array, "b q e"], text: Float[Array, "c e"], known: Array
    ) -> Float[Array, "b q c"]:
        """p_q (Eq. 2) over the classes that are `known`; those of "no object" are left out."""
        logits = jnp.where(known[None, None], cosine_scores(vectors, text) / self.config.temperature, NEVER)
        if self.config.classes.unmatched == "uniform":
            return jax.nn.softmax(logits)
        other = cosine_scores(vectors, unit(params["background"])[None]) / self.config.temperature
        return jax.nn.softmax(jnp.concatenate([logits, other], axis=-1))[..., :-1]

    def _proposed(self, params: PyTree, seen: Seen, key: Array | None = None) -> Proposed:
        """The proposals; as in training (drop path) if a random key is given."""
        rngs, network = None if key is None else {"drop_path": key}, self.network.of(seen, self.task.first_block)
        return cast(Proposed, network.apply({"params": params}, seen, train=key is not None, rngs=rngs))

    def last_proposals(self, params: PyTree, seen: Seen) -> Proposed:
        """The proposals of the last layer alone."""
        proposed = self._proposed(params, seen)
        return Proposed(proposed.vectors[-1:], proposed.mask_vectors[-1:], proposed.mask_features)

    def proposals(self, params: PyTree, memory: PyTree, images: Seen) -> Float[Array, "b q h w"]:
        """Logits of the masks of the last layer (`methods.method.Proposes`)."""
        return self.last_proposals(params, images).masks[0]

    def embed(self, params: PyTree, images: Seen) -> Float[Array, "b h w d"]:
        """Unit patch features of the backbone."""
        network = self.network.of(images, self.task.first_block)
        return unit(cast(Array, network.apply({"params": params}, images, method=Network.patches)))

    def flops(self, data: int = 1, model: int = 1) -> dict[str, int]:
        """Unknown."""
        return {}

    def figures(
        self,
        params: PyTree,
        memory: Float[Array, "rows e"],
        label_set: LabelSet,
        windows: Images,
        tags: Int[Array, "1 l"],
    ) -> dict[str, Float[Array, "b h w l"]]:
        """The mask of the query that is most like each tag, in each window."""
        last = self.last_proposals(params, windows)
        text = memory[jnp.asarray(label_set.rows)][jnp.maximum(tags[0], 0)]
        best = jnp.argmax(cosine_scores(last.vectors[0], text), axis=1)
        masks = jnp.take_along_axis(last.masks[0], best[..., None, None], axis=1)
        return {"mask of the query most like": masks.transpose(0, 2, 3, 1)}
