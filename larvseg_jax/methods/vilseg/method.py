"""ViL-Seg as a method: L = L_vision + L_cross + L_cluster (Eq. 1), and clusters that get the nearest text's class.

Letters: b pictures, h x w patch grid, d width of the common space, v local views, c clusters.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

from data_pipelines.caption_views import CaptionView
from data_pipelines.feature_files import token_names
from data_pipelines.features import FeatureView
from larvseg_jax.devices.in_step import constrain
from larvseg_jax.errors import UserError
from larvseg_jax.methods.contrastive import contrastive_loss, mean_of, retrieved
from larvseg_jax.methods.method import Batch, Dense, Images, Metrics, NamedClusters, Seen, Task
from larvseg_jax.methods.vilseg import vision
from larvseg_jax.methods.vilseg.clusters import cluster_loss, clusters_in_each
from larvseg_jax.methods.vilseg.flops import step_flops
from larvseg_jax.methods.vilseg.network import Network
from larvseg_jax.methods.vilseg.options import Options
from larvseg_jax.methods.vilseg.reading import Reader
from larvseg_jax.methods.vilseg.symptoms import symptoms
from larvseg_jax.models.attention_choice import device_attention
from larvseg_jax.models.clip import Embedded, contrastive_logits, fresh_parameters, normalised, pooled
from larvseg_jax.models.flip import flip_back
from larvseg_jax.models.frozen import frozen_blocks
from larvseg_jax.models.partial import StoredTokens
from larvseg_jax.vocabulary import LabelSet

Memory = dict[str, Any]
"""`center` and `teacher` of L_vision, `head_losses` of several clustering heads; each where it is used."""

_OF_TEACHER = ("backbone", "image_projection", "view_head")
_HEAD_MOMENTUM = 0.99  # of the running means of the heads' losses


class ViLSeg:
    """Segments by clusters that it finds, and names them by texts; a `methods.method.Method`."""

    def __init__(self, config: Options, task: Task) -> None:
        self.config, self.task = config, task
        if config.encoder.pool == "cls" and (task.first_block or not task.backbone.class_token):
            why = "features have none" if task.first_block else "model.class_token is False"
            raise UserError(f"method.encoder.pool is 'cls', the class token, and {why}: use 'mean'")
        tokenizer = config.tokenizer.make()
        self.network = Network(
            task.backbone,
            config.text,
            config.width,
            tokenizer.vocabulary_size,
            tokenizer.context,
            device_attention(task.backbone, task.mesh.devices.flat),
            frozen_blocks(task.backbone, task.frozen),
            outcomes=config.vision.dim,
            clusters=config.cluster.num * config.cluster.heads,
            stored=task.first_block,
        )
        self._reader = Reader(config, self.network, tokenizer)
        for name, stream in task.streams.items():
            self._check_view(f"streams.{name}", stream.view)

    def init(self, key: Array) -> tuple[PyTree, Memory]:
        """Fresh parameters as CLIP's are drawn; a centre of zeros, a teacher that is the network."""
        params = fresh_parameters(self.network, key)
        memory: Memory = {}
        if self.config.vision.keeps_center:
            memory["center"] = jnp.zeros(self.config.vision.dim)
        if self.config.vision.has_teacher:
            memory["teacher"] = {name: jax.tree.map(jnp.copy, params[name]) for name in _OF_TEACHER}
        if self.config.cluster.heads > 1:
            memory["head_losses"] = jnp.zeros(self.config.cluster.heads)
        return params, memory

    def loss(
        self, params: PyTree, memory: Memory, batch: Batch, key: Array
    ) -> tuple[Float[Array, ""], tuple[Metrics, Memory]]:
        """L (Eq. 1), and besides: its parts, what tells a collapse, and the centre and head losses after the step."""
        total, metrics = jnp.zeros(()), {"scale": self.logit_scale(params)}
        seen = {name: value for name, value in memory.items() if name != "teacher"}
        for index, (name, stream) in enumerate(self.task.streams.items()):
            weighted, found, seen = self._of_stream(params, memory | seen, batch[name], jax.random.fold_in(key, index))
            total += stream.loss.weight * weighted
            metrics |= {f"{name}/{of}": value for of, value in found.items()}
        return total, (metrics, seen)

    def _of_stream(
        self, params: PyTree, memory: Memory, arrays: Mapping[str, Array], key: Array
    ) -> tuple[Float[Array, ""], Metrics, Memory]:
        """The weighted losses of a stream's batch, their metrics, and the memory without the teacher after them."""
        config, counted = self.config, arrays["valid"]
        seen = {name: value for name, value in memory.items() if name != "teacher"}
        total, metrics = jnp.zeros(()), cast(Metrics, {})
        whole, changed = self._whole(params, arrays, key)
        vectors = pooled(whole, config.encoder.pool)
        if config.vision.weight:
            local = self._views(params, arrays, jax.random.fold_in(key, 1))
            loss, found, center = self._vision(params, memory, self._seen(arrays, "image"), vectors, local, counted)
            total, metrics = total + config.vision.weight * loss, metrics | found
            seen |= {} if center is None else {"center": center}
        if config.cross.weight:
            loss, found = self._cross(params, vectors, arrays["tokens"], counted)
            total, metrics = total + config.cross.weight * loss, metrics | found
        if changed is not None:
            losses, found = self._cluster(params, whole.patches, flip_back(changed, arrays["flipped"]), counted)
            total, metrics = total + config.cluster.weight * jnp.mean(losses), metrics | found
            if "head_losses" in seen:
                seen["head_losses"] = _HEAD_MOMENTUM * seen["head_losses"] + (1 - _HEAD_MOMENTUM) * losses
        return total, metrics, seen

    def _whole(
        self, params: PyTree, arrays: Mapping[str, Array], key: Array
    ) -> tuple[Embedded, Float[Array, "b h w d"] | None]:
        """The pictures, and the patches of the recoloured ones if they are needed."""
        image = self._seen(arrays, "image")
        if not self.config.cluster.weight:
            return self._images(params, image, key), None
        # Side by side, so that each device keeps its own pictures.
        pairs = jax.tree.map(
            lambda *both: jnp.stack(both, 1).reshape(-1, *both[0].shape[1:]), image, self._seen(arrays, "recoloured")
        )
        embedded = self._images(params, pairs, key)
        patches = embedded.patches.reshape(-1, 2, *embedded.patches.shape[1:])
        return Embedded(None if embedded.cls is None else embedded.cls[::2], patches[:, 0]), patches[:, 1]

    def _seen(self, arrays: Mapping[str, Array], picture: str) -> Any:
        """One of the pictures of all rows, or the tokens that are stored of it."""
        if not self.task.first_block:
            return arrays[picture]
        leading, patches = token_names(picture)
        return StoredTokens(arrays[leading], arrays[patches])

    def _views(self, params: PyTree, arrays: Mapping[str, Array], key: Array) -> Float[Array, "v b d"]:
        """e_v of the local views."""
        views = self._seen(arrays, "locals")
        b, v = jax.tree.leaves(views)[0].shape[:2]
        flat = jax.tree.map(lambda x: x.reshape(b * v, *x.shape[2:]), views)
        vectors = pooled(self._images(params, flat, key), self.config.encoder.pool)
        return jnp.swapaxes(vectors.reshape(b, v, -1), 0, 1)

    def _images(self, params: PyTree, seen: Seen, key: Array | None = None) -> Embedded:
        """Both outputs of the image tower; as in training (drop path) if a random key is given."""
        rngs, network = None if key is None else {"drop_path": key}, self.network.of(seen)
        found = network.apply({"params": params}, seen, train=key is not None, rngs=rngs, method=Network.images)
        return cast(Embedded, found)

    def _apply(self, params: PyTree, method: Any, *arguments: Array) -> Array:
        return cast(Array, self.network.apply({"params": params}, *arguments, method=method))

    def _vision(
        self,
        params: PyTree,
        memory: Memory,
        images: Seen,
        vectors: Float[Array, "b d"],
        local: Float[Array, "v b d"],
        counted: Bool[Array, " b"],
    ) -> tuple[Float[Array, ""], Metrics, Float[Array, " k"] | None]:
        """L_vision (Eq. 2), how its targets are spread, and the centre after the step."""
        options = self.config.vision
        student, sharp = options.temperatures
        if options.has_teacher:
            other = {**params, **memory["teacher"]}
            vectors, of = pooled(self._images(other, images), self.config.encoder.pool), other
        else:
            of = params
        logits = self._outcomes(of, vectors)
        center = memory.get("center", jnp.zeros(options.dim))
        target = vision.targets(logits, center, options.target, sharp)
        loss = vision.vision_loss(target, self._outcomes(params, local), counted, student)
        weights = counted.astype(target.dtype)[:, None]
        mean = jnp.sum(lax.stop_gradient(target) * weights, axis=0) / jnp.maximum(jnp.sum(weights), 1.0)
        metrics = {
            "L_vision": loss,
            "target_entropy": mean_of(vision.entropy(lax.stop_gradient(target)), counted),
            "mean_target_entropy": vision.entropy(mean),
        }
        if not options.keeps_center:
            return loss, metrics, None
        after = vision.next_center(center, lax.stop_gradient(logits), counted, options.center_momentum)
        return loss, metrics, after

    def _outcomes(self, params: PyTree, vectors: Float[Array, "*batch d"]) -> Float[Array, "*batch k"]:
        """Logits of Phi_a."""
        return self._apply(params, Network.views, normalised(vectors) if self.config.vision.normalise else vectors)

    def _cross(
        self, params: PyTree, vectors: Float[Array, "b d"], tokens: Int[Array, "b l"], counted: Bool[Array, " b"]
    ) -> tuple[Float[Array, ""], Metrics]:
        """L_cross (Eq. 3 and 4), all pictures of the batch against all of its captions, on whatever devices."""
        texts = self._apply(params, Network.texts, tokens)
        logits = constrain(contrastive_logits(vectors, texts, self.logit_scale(params)), "data", None)
        loss = contrastive_loss(logits, counted, symmetric=self.config.cross.symmetric)
        return loss, {"L_cross": loss, "retrieval_at_1": lax.stop_gradient(retrieved(logits, counted))}

    def _cluster(
        self,
        params: PyTree,
        patches: Float[Array, "b h w d"],
        changed: Float[Array, "b h w d"],
        counted: Bool[Array, " b"],
    ) -> tuple[Float[Array, " heads"], Metrics]:
        """L_cluster (Eq. 6 to 8) of every head; of the first one, what is said of its clusters."""
        options = self.config.cluster
        both = jnp.stack([patches, changed])
        both = lax.stop_gradient(both) if options.stop_gradient else both
        logits = self._apply(params, Network.cluster, both)
        logits = logits.reshape(*logits.shape[:-1], options.heads, options.num)
        weights = jnp.broadcast_to(counted[:, None, None], patches.shape[:3]).astype(logits.dtype)
        before, after = logits
        loss_of = functools.partial(cluster_loss, weights=weights, symmetric=options.symmetric, over=options.over)
        losses = jnp.stack(
            [
                loss_of(before[..., head, :], after[..., head, :], marginal_weight=options.marginal_weight)[0]
                for head in range(options.heads)
            ]
        )
        information, joint = loss_of(*lax.stop_gradient((before[..., 0, :], after[..., 0, :])))
        used = jnp.sum(joint, axis=1) > 1 / (4 * options.num)
        metrics = {
            "L_cluster": jnp.mean(losses),
            "information": -information / math.log(options.num),
            "clusters_in_use": jnp.sum(used).astype(losses.dtype),
            "clusters_in_a_picture": mean_of(clusters_in_each(lax.stop_gradient(before[..., 0, :])), counted),
        }
        return losses, metrics

    def remember(self, memory: Memory, params: PyTree, seen: Memory) -> Memory:
        """The centre and the head losses as `loss` has seen them; the teacher follows the network."""
        if "teacher" not in memory:
            return seen
        old = self.config.vision.teacher_momentum
        of = {name: params[name] for name in _OF_TEACHER}
        return {**seen, "teacher": jax.tree.map(lambda a, b: old * a + (1 - old) * b, memory["teacher"], of)}

    def scorer(self, label_set: LabelSet) -> Dense:
        """The class of a patch is that of its cluster in the window (Sec. 3.5); see `Reader`."""
        return self._reader.scorer(label_set)

    def text_vectors(self, params: PyTree, names: tuple[str, ...], templates: str = "") -> Float[Array, "n d"]:
        """Unit vectors of classes by any names, as the scorer has them (`methods.method.ReadsText`)."""
        return self._reader.text_vectors(params, names, templates)

    def image_vectors(self, params: PyTree, images: Seen) -> Float[Array, "b d"]:
        """Unit vectors of whole pictures, by `encoder.pool`."""
        return normalised(pooled(self._images(params, images), self.config.encoder.pool))

    def caption_vectors(self, params: PyTree, ids: Int[Array, "m l"]) -> Float[Array, "m d"]:
        """Unit vectors of captions."""
        return normalised(self._apply(params, Network.texts, ids))

    def logit_scale(self, params: PyTree) -> Float[Array, ""]:
        """1 / tau."""
        scale = self._apply(params, Network.scale)
        return scale if self.config.cross.temperature == "learned" else lax.stop_gradient(scale)

    def clusters(self, params: PyTree, memory: Memory, images: Seen) -> Int[Array, "b h w"]:
        """The cluster of each patch (Sec. 3.5), whatever it is called."""
        return self._reader.clusters(params, memory, images)

    def embed(self, params: PyTree, images: Seen) -> Float[Array, "b h w d"]:
        """Unit patch features in the space of the texts."""
        return normalised(self._images(params, images).patches)

    def flops(self, data: int = 1, model: int = 1) -> dict[str, int]:
        """By the parts of flops.py; chips along `model` do the same work. Unknown of cached features."""
        return {} if self.task.first_block else step_flops(self.task, self.config, data)

    def figures(
        self, params: PyTree, memory: Memory, label_set: LabelSet, windows: Images, tags: Int[Array, "1 l"]
    ) -> dict[str, Float[Array, "b h w l"]]:
        """Where the clusters lie that got each tag's name."""
        return self._reader.figures(params, memory, label_set, windows, tags)

    def named_clusters(self, params: PyTree, memory: Memory, label_set: LabelSet, windows: Images) -> NamedClusters:
        """As `methods.method.FindsClusters` has it."""
        return self._reader.named_clusters(params, memory, label_set, windows)

    def symptoms(self, metrics: Mapping[str, float]) -> list[str]:
        """What the metrics of a step show to be wrong (symptoms.py)."""
        return symptoms(metrics, list(self.task.streams), self.config)

    def _check_view(self, path: str, view: Any) -> None:
        """UserError where a stream lacks what a loss needs."""
        view = view.view if isinstance(view, FeatureView) else view
        assert isinstance(view, CaptionView)
        if view.text != self.config.tokenizer:
            raise UserError(f"{path}.text differs from method.tokenizer: both must be the same tokenizer")
        if self.config.vision.weight and not view.local_views:
            raise UserError(f"L_vision needs small crops: set {path}.local_views to 6, or method.vision.weight to 0")
        if self.config.cluster.weight and not view.recoloured:
            raise UserError(f"L_cluster needs {path}.recoloured=True, or method.cluster.weight=0")
