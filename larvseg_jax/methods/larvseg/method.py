"""LarvSeg as a method: L = sum over streams of weight * (L_seg | lambda_cls L_cls + lambda_aux L_aux)   (Eq. 6).

`Paper:` every stream has weight 1; `Original:` its share of the GPUs (docs/method.md, section 5).
"""

from __future__ import annotations

from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from larvseg_jax.errors import UserError
from larvseg_jax.methods.larvseg import flops, memory_bank, taught
from larvseg_jax.methods.larvseg.linear import centred_vectors, scaled_features
from larvseg_jax.methods.larvseg.losses import segmentation_loss
from larvseg_jax.methods.larvseg.memory_bank import MemoryBank
from larvseg_jax.methods.larvseg.network import Network, class_rows, segment
from larvseg_jax.methods.larvseg.options import Options, TagLoss
from larvseg_jax.methods.larvseg.streams import streams_of
from larvseg_jax.methods.larvseg.tag_losses import BankWrites, tag_losses
from larvseg_jax.methods.larvseg.tag_pooling import pool_tags
from larvseg_jax.methods.method import Batch, Images, Linear, Metrics, Seen, Task, Vectors
from larvseg_jax.models.attention_choice import device_attention
from larvseg_jax.models.cosine_head import ClassTable, standardised_logits
from larvseg_jax.models.frozen import frozen_blocks
from larvseg_jax.models.partial import StoredTokens
from larvseg_jax.vocabulary import LabelSet


class LarvSeg:
    """Segments thousands of classes, of which only the base ones have masks; a `methods.method.Method`."""

    def __init__(self, config: Options, task: Task) -> None:
        self.config, self.task = config, task
        still = frozen_blocks(task.backbone, task.frozen)
        self.model = Network(
            task.backbone,
            task.rows,
            config.gamma_init,
            device_attention(task.backbone, task.mesh.devices.flat),
            still,
            text_width=config.text.width,
        )
        self._of_tokens = self.model.clone(first=task.first_block)  # the same, of what enters its first block
        self.streams = streams_of(task)
        # Without the CA-Classifier on any stream the bank is neither read nor written.
        self.attends = any(isinstance(s.loss, TagLoss) and s.loss.lambda_aux > 0 for s in self.streams)
        tagged = [stream.label_set for stream in task.streams.values() if isinstance(stream.loss, TagLoss)]
        self._tagged_rows = np.isin(np.arange(task.rows), [r for of in tagged for r in of.rows[of.multiplicity > 0]])
        for name, stream in task.streams.items():
            if isinstance(stream.loss, TagLoss):
                self._check_topk(f"streams.{name}", stream.view.crop_size)

    def init(self, key: Array) -> tuple[PyTree, MemoryBank]:
        """Fresh parameters and an empty bank."""
        side = self.task.backbone.image_size
        one_class = jnp.zeros(1, jnp.int32), jnp.ones(1)  # parameters do not depend on which classes take part
        params = self.model.init(key, jnp.zeros((1, side, side, 3)), *one_class)["params"]
        if self.config.text.width and self.task.streams:  # a trained model brings its own
            vectors = self.config.text.read(self.task.names)
            embeddings = params["head"]["class_embeddings"].at[: len(vectors)].set(vectors)
            params = {**params, "head": {**params["head"], "class_embeddings": embeddings}}
        ca = self.config.ca_classifier
        width = self.config.text.width or self.task.backbone.width
        bank = MemoryBank.empty(self.task.rows, ca.memory_bank_size, width, ca.bank_dtype)
        return params, bank

    def loss(
        self, params: PyTree, memory: MemoryBank, batch: Batch, key: Array
    ) -> tuple[Float[Array, ""], tuple[Metrics, list[BankWrites]]]:
        """L (Eq. 6), and besides: its parts and gamma, and what the step writes to the bank."""
        total, metrics = jnp.zeros(()), {"gamma": params["head"]["gamma"]}
        writes: list[BankWrites] = []
        for index, stream in enumerate(self.streams):
            arrays, of = batch[stream.name], stream.loss
            labels = stream.columns(arrays["tags" if isinstance(of, TagLoss) else "label"])
            drop_path_key = jax.random.fold_in(key, index)
            seen = StoredTokens(arrays["leading"], arrays["patches"]) if self.task.first_block else arrays["image"]
            patches, table = segment(self._network(seen), params, seen, stream.label_set, drop_path_key)
            table = stream.sampled(table, labels, jax.random.fold_in(key, len(self.streams) + index))
            if isinstance(of, TagLoss):
                ca = self.config.ca_classifier
                losses, written = tag_losses(patches, table, labels, memory, stream, ca, self.attends)
                writes.append(written)
                total += of.weight * (of.lambda_cls * losses["L_cls"] + of.lambda_aux * losses["L_aux"])
            else:
                mean_over = self.config.seg_loss_mean
                losses = {"L_seg": segmentation_loss(patches, table, labels, arrays["valid"], mean_over)}
                total += of.weight * losses["L_seg"]
            metrics |= {f"{stream.name}/{name}": value for name, value in losses.items()}
        if self.attends:
            metrics["ready/bank"] = memory.filled(jnp.asarray(self._tagged_rows), self.config.ca_classifier.warmup)
        return total, (metrics, writes)

    def remember(self, memory: MemoryBank, params: PyTree, seen: list[BankWrites]) -> MemoryBank:
        """One transaction per step: every pair has read the old bank, now all write in a fixed order."""
        if not self.attends:
            return memory
        return memory_bank.write(memory, *jax.tree.map(lambda *x: jnp.concatenate(x), *seen))

    def scorer(self, label_set: LabelSet) -> Linear:
        """Standardised logits: linear in the patch feature once its own standard deviation is divided out."""
        rows, multiplicity = class_rows(label_set, self.model.num_classes), jnp.asarray(label_set.multiplicity)

        def scores(params: PyTree, _memory: PyTree, images: Seen) -> Float[Array, "b h w n"]:
            return standardised_logits(*segment(self._network(images), params, images, label_set))

        def vectors(params: PyTree, _memory: PyTree) -> Vectors:
            table = self.model.apply({"params": params}, rows, multiplicity, method=Network.classes)
            return centred_vectors(cast(ClassTable, table))

        def embed(params: PyTree, _memory: PyTree, images: Seen) -> Float[Array, "b h w d"]:
            return self.embed(params, images)

        return Linear(scores, vectors, embed, scaled_features)

    def embed(self, params: PyTree, images: Seen) -> Float[Array, "b h w d"]:
        """Unit patch features."""
        return cast(Array, self._network(images).apply({"params": params}, images, method=Network.embed))

    def _network(self, seen: Seen) -> Network:
        return self._of_tokens if isinstance(seen, StoredTokens) else self.model

    def flops(self, data: int = 1, model: int = 1) -> dict[str, int]:
        """By the parts of flops.py; unknown with text vectors, whose width is not the backbone's."""
        if self.config.text.width:
            return {}
        sizes = flops.stream_sizes(self.task, self.config, self.attends, data, model)
        return flops.step_flops(self.task.backbone, sizes, self.task.frozen, self.task.first_block)

    def figures(
        self, params: PyTree, memory: MemoryBank, label_set: LabelSet, windows: Images, tags: Int[Array, "1 l"]
    ) -> dict[str, Float[Array, "b h w l"]]:
        """The attention maps of the tags, before their sigmoid."""
        if not self.attends:
            return {}
        self._check_topk("an evaluation's window", windows.shape[1])
        patches, table = segment(self.model, params, windows, label_set)
        n, h, w, d = patches.shape
        tall = patches.reshape(1, n * h, w, d)  # all windows are one picture to the attention
        rows, ca = jnp.asarray(label_set.rows), self.config.ca_classifier
        attention = pool_tags(tall, table, tags, rows, memory, ca, (n * h, w)).attention
        return {"attention": attention[0].reshape(-1, n, h, w).transpose(1, 2, 3, 0)}

    with_row = staticmethod(taught.with_row)
    without_row = staticmethod(taught.without_row)

    def _check_topk(self, option: str, side: int) -> None:
        """`Original:` with K above the number of patches the bank silently stays empty."""
        patches = (-(-side // self.task.backbone.patch_size)) ** 2
        ca = self.config.ca_classifier
        most = max(ca.foreground_topk, ca.background_topk)
        if self.attends and most > patches:
            raise UserError(f"ca_classifier top-k of {most} exceeds the {patches} patches of {option}: lower it")
