"""CLIP as a method: L = sum over streams of weight * L_contrastive; classes of patches by cosine with their prompts."""

from __future__ import annotations

import dataclasses
import functools
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32, PyTree

from larvseg_jax.errors import UserError
from larvseg_jax.methods.class_vectors import class_vectors, prompt_ids
from larvseg_jax.methods.clip.options import Options
from larvseg_jax.methods.contrastive import contrastive_loss
from larvseg_jax.methods.method import Batch, Dense, Images, Linear, Metrics, Seen, Task, Vectors
from larvseg_jax.models.attention_choice import device_attention
from larvseg_jax.models.clip import Clip, Embedded, contrastive_logits, fresh_parameters, normalised, pooled
from larvseg_jax.models.dense_clip import DenseTokens, denoised, dense_tokens, probabilities_of, smoothed
from larvseg_jax.models.frozen import frozen_blocks
from larvseg_jax.models.precision import precise_einsum
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.text.prompts import templates
from larvseg_jax.text.tokenizer import Tokenizer
from larvseg_jax.vocabulary import LabelSet

SCALE = 100.0
"""Of cosines with classes, as in the published models."""


class ClipMethod:
    """Compares pictures with texts; a `methods.method.Method`. It has no memory."""

    def __init__(self, config: Options, task: Task) -> None:
        self.config, self.task = config, task
        if task.first_block:
            raise UserError("method clip begins at pictures: it does not go with features")
        if task.backbone.depth < 2 or not task.backbone.class_token:
            raise UserError("method clip needs a backbone with a class token and two blocks or more")
        for name, stream in task.streams.items():
            if getattr(stream.view, "text", config.tokenizer) != config.tokenizer:
                raise UserError(f"streams.{name}.text and method.tokenizer differ: make them the same")
        self.model = Clip(
            task.backbone,
            config.text,
            config.width,
            self.tokenizer.vocabulary_size,
            self.tokenizer.context,
            device_attention(task.backbone, task.mesh.devices.flat),
            frozen_blocks(task.backbone, task.frozen),
        )

    @property
    def _dense_tower(self) -> ViTConfig:
        """The image tower as dense features see it."""
        if not self.config.original_quirks:
            return self.task.backbone
        return dataclasses.replace(self.task.backbone, mlp="gelu", layer_norm_epsilon=1e-6, pixels="imagenet")

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """From a text to its ids."""
        return self.config.tokenizer.make()

    def init(self, key: Array) -> tuple[PyTree, tuple[()]]:
        """Fresh parameters, as CLIP's."""
        return fresh_parameters(self.model, key), ()

    def loss(
        self, params: PyTree, memory: PyTree, batch: Batch, key: Array
    ) -> tuple[Float[Array, ""], tuple[Metrics, tuple[()]]]:
        """The contrastive losses of the streams, and besides: each, and the scale of the cosines."""
        scale = self.logit_scale(params)
        total, metrics = jnp.zeros(()), {"logit_scale": scale}
        for index, (name, stream) in enumerate(self.task.streams.items()):
            arrays = batch[name]
            rngs = {"drop_path": jax.random.fold_in(key, index)}
            embedded, texts = self.model.apply(
                {"params": params}, arrays["image"], arrays["tokens"], train=True, rngs=rngs
            )
            logits = contrastive_logits(pooled(embedded, "cls"), cast(Array, texts), scale)
            loss = contrastive_loss(logits, arrays["valid"], symmetric=True)
            total += stream.loss.weight * loss
            metrics[f"{name}/L_contrastive"] = loss
        return total, (metrics, ())

    def remember(self, memory: PyTree, params: PyTree, seen: PyTree) -> PyTree:
        """Nothing."""
        return memory

    def scorer(self, label_set: LabelSet) -> Dense:
        """Cosines with the classes' prompts, times 100; `Linear` without denoising and smoothing.

        These need the probabilities of all classes in a picture, and compute the classes anew for each batch of
        windows. `Original:` whole pictures; in an evaluation a picture is a window.
        """
        ids = functools.cache(functools.partial(self._prompt_ids, label_set.names))  # read when it is traced

        def vectors(params: PyTree, _memory: PyTree) -> Vectors:
            found = class_vectors(functools.partial(self._texts, params), ids())
            return Vectors(found, jnp.asarray(label_set.multiplicity), jnp.zeros(()))

        def embed(params: PyTree, _memory: PyTree, images: Seen) -> Float[Array, "b h w d"]:
            return self.embed(params, images)

        def scores(params: PyTree, memory: PyTree, images: Seen) -> Float[Array, "b h w n"]:
            tokens = self._tokens(params, images)
            of_classes = vectors(params, memory).vectors
            cosines = precise_einsum("bhwd,nd->bhwn", self._unit(params, tokens), of_classes)
            return SCALE * cosines if linear else self._refined(cosines, tokens)

        linear = not self.config.prompt_denoising and self.config.key_smoothing == "off"
        if not linear:
            return Dense(scores)
        return Linear(scores, vectors, embed, lambda patches, _classes: SCALE * patches, costly=True)

    def embed(self, params: PyTree, images: Seen) -> Float[Array, "b h w d"]:
        """Unit dense features in the space of texts."""
        return self._unit(params, self._tokens(params, images))

    def text_vectors(self, params: PyTree, names: tuple[str, ...], templates: str = "") -> Float[Array, "n d"]:
        """The unit vectors of classes by their names, as the scorer has them."""
        ids = self._prompt_ids(names, templates)
        return cast(Array, jax.jit(lambda params: class_vectors(functools.partial(self._texts, params), ids))(params))

    def image_vectors(self, params: PyTree, images: Seen) -> Float[Array, "b d"]:
        """Unit vectors of whole pictures: of the class token."""
        found = self.model.apply({"params": params}, cast(Array, images), method=Clip.images)
        return normalised(pooled(cast(Embedded, found), "cls"))

    def caption_vectors(self, params: PyTree, ids: Int[Array, "m l"]) -> Float[Array, "m d"]:
        """Unit vectors of captions."""
        return normalised(self._texts(params, ids))

    def logit_scale(self, params: PyTree) -> Float[Array, ""]:
        """What cosines of pictures and captions are multiplied with."""
        return cast(Array, self.model.apply({"params": params}, method=Clip.scale))

    def flops(self, data: int = 1, model: int = 1) -> dict[str, int]:
        """Unknown."""
        return {}

    def figures(
        self, params: PyTree, memory: PyTree, label_set: LabelSet, windows: Images, tags: Int[Array, "1 l"]
    ) -> dict[str, Float[Array, "b h w l"]]:
        """None."""
        return {}

    def _prompt_ids(self, names: tuple[str, ...], of: str = "") -> Int32[np.ndarray, "n templates l"]:
        return prompt_ids(names, templates(of or self.config.templates), self.tokenizer)

    def _texts(self, params: PyTree, ids: Int[Array, "m l"]) -> Float[Array, "m d"]:
        return cast(Array, self.model.apply({"params": params}, ids, method=Clip.texts))

    def _tokens(self, params: PyTree, images: Seen) -> DenseTokens:
        return dense_tokens(
            self.config.features, self._dense_tower, self.model.attention, params["backbone"], cast(Array, images)
        )

    def _unit(self, params: PyTree, tokens: DenseTokens) -> Float[Array, "b h w d"]:
        projected = self.model.apply({"params": params}, tokens.patches, method=Clip.projected)
        return normalised(cast(Array, projected))

    def _refined(self, cosines: Float[Array, "b h w n"], tokens: DenseTokens) -> Float[Array, "b h w n"]:
        """Denoised, then smoothed."""
        cfg = self.config
        if cfg.prompt_denoising:
            cosines = denoised(cosines, probabilities_of(cosines, SCALE), cfg.prompt_denoising)
        if cfg.key_smoothing == "off":
            return SCALE * cosines
        return smoothed(probabilities_of(cosines, SCALE), tokens, cfg.key_smoothing, cfg.smooth_below)
