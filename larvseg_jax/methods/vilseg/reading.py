"""How a trained ViL-Seg segments: clusters of a window, their regions, the class whose text is nearest (Sec. 3.5)."""

from __future__ import annotations

import functools
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32, PyTree

from larvseg_jax.errors import UserError
from larvseg_jax.methods.class_vectors import class_vectors, prompt_ids
from larvseg_jax.methods.method import Dense, Images, Linear, NamedClusters, Seen, Vectors
from larvseg_jax.methods.vilseg import regions
from larvseg_jax.methods.vilseg.kmeans import closeness, kmeans
from larvseg_jax.methods.vilseg.network import Network
from larvseg_jax.methods.vilseg.options import Options
from larvseg_jax.models.clip import Embedded, normalised
from larvseg_jax.models.precision import precise_einsum
from larvseg_jax.text import prompts
from larvseg_jax.text.tokenizer import Tokenizer
from larvseg_jax.vocabulary import LabelSet

_SURE = 8.0  # logit of a map that is 1 or 0
_NO_COSINE = -2.0  # below any


class Reader:
    """Classes of patches, by the options of `method.eval`.

    A window is a picture of its own: its clusters are not those of another window, as in the paper, which sees pictures
    whole. Choose windows that hold the picture (evals.*.window) where this matters.
    """

    def __init__(self, config: Options, network: Network, tokenizer: Tokenizer) -> None:
        self._only_words = config.tokenizer.kind == "words"
        self._options, self._cluster, self._network, self._tokenizer = config.eval, config.cluster, network, tokenizer

    def scorer(self, label_set: LabelSet) -> Dense:
        """Scores on the patch grid.

        With upsample="logits" those of `regions.class_scores`, with "labels" cosines of regions and texts, which are
        products, so that the best of very many classes are found exactly.
        """
        reads_memory = self._options.clusters == "head" and self._cluster.heads > 1
        texts_of = functools.partial(self.text_vectors, names=label_set.names)

        def scores(params: PyTree, memory: PyTree, images: Seen) -> Float[Array, "b h w n"]:
            patches, logits, found = self._regions(params, memory, images)
            cosines = self._cosines(params, label_set, found)
            return regions.class_scores(logits, found, cosines, self._options.upsample)

        if self._options.upsample == "logits":
            return Dense(scores, reads_memory=reads_memory)

        def vectors(params: PyTree, _memory: PyTree) -> Vectors:
            return Vectors(texts_of(params), jnp.asarray(label_set.multiplicity), jnp.zeros(()))

        def embed(params: PyTree, memory: PyTree, images: Seen) -> Float[Array, "b h w d"]:
            """The unit mean of each patch's region."""
            _, logits, found = self._regions(params, memory, images)
            members = jax.nn.one_hot(found.clusters, logits.shape[-1], dtype=logits.dtype)
            return precise_einsum("bhwc,bcd->bhwd", members, normalised(found.means))

        return Linear(scores, vectors, embed, reads_memory=reads_memory, costly=True)

    def figures(
        self, params: PyTree, memory: PyTree, label_set: LabelSet, windows: Images, tags: Int[Array, "1 l"]
    ) -> dict[str, Float[Array, "b h w l"]]:
        """Maps of the patches whose cluster got a tag's name."""
        found = self.named_clusters(params, memory, label_set, windows)
        of_patches = jax.vmap(lambda classes, clusters: classes[clusters])(found.classes, found.clusters)
        named_so = of_patches[..., None] == tags[0][None, None, None]
        return {"clusters": jnp.where(named_so, _SURE, -_SURE)}

    def named_clusters(self, params: PyTree, memory: PyTree, label_set: LabelSet, windows: Images) -> NamedClusters:
        """The clusters of windows, and the class each gets; classes that no pixel can have take no part."""
        _, _, found = self._regions(params, memory, windows)
        cosines = self._cosines(params, label_set, found)
        return NamedClusters(found.clusters, regions.region_classes(found, cosines))

    def clusters(self, params: PyTree, memory: PyTree, images: Seen) -> Int[Array, "b h w"]:
        """The cluster of each patch, 0 to C - 1, which means nothing from one window to the next with K-means."""
        return self._regions(params, memory, images)[2].clusters

    def _cosines(self, params: PyTree, label_set: LabelSet, found: regions.Regions) -> Float[Array, "b c n"]:
        """Of regions and classes; less than any of a class that no pixel can have."""
        cosines = regions.region_cosines(found, self.text_vectors(params, label_set.names))
        return jnp.where(jnp.asarray(label_set.multiplicity == 0)[None, None], _NO_COSINE, cosines)

    def _regions(
        self, params: PyTree, memory: PyTree, images: Seen
    ) -> tuple[Float[Array, "b h w d"], Float[Array, "b h w c"], regions.Regions]:
        """Patches of windows, logits of their clusters, their regions."""
        network = self._network.of(images)
        patches = cast(Embedded, network.apply({"params": params}, images, method=Network.images)).patches
        logits = self._logits(params, memory, patches)
        return patches, logits, regions.regions_of(patches, logits, normalise=self._options.normalise_pixels)

    def _logits(self, params: PyTree, memory: PyTree, patches: Float[Array, "b h w d"]) -> Float[Array, "b h w c"]:
        """Of the clusters: by the best head, or by K-means in each window."""
        if self._options.clusters == "kmeans":

            def of_window(window: Float[Array, "h w d"]) -> Float[Array, "h w c"]:
                points = window.reshape(-1, window.shape[-1])
                return closeness(window, kmeans(jax.random.key(0), points, self._cluster.num))

            return jax.vmap(of_window)(patches)
        logits = cast(Array, self._network.apply({"params": params}, patches, method=Network.cluster))
        if self._cluster.heads == 1:
            return logits
        logits = logits.reshape(*logits.shape[:-1], self._cluster.heads, self._cluster.num)
        return jnp.take(logits, jnp.argmin(memory["head_losses"]), axis=-2)

    def text_vectors(self, params: PyTree, names: tuple[str, ...], templates: str = "") -> Float[Array, "n d"]:
        """The unit vectors of classes by their names; `templates` as text/prompts.py has it, "": the config's."""
        of = prompts.templates(templates or self._options.templates)

        def texts(ids: Int[Array, "m l"]) -> Float[Array, "m d"]:
            return cast(Array, self._network.apply({"params": params}, ids, method=Network.texts))

        ids = prompt_ids(names, of, self._tokenizer)
        self._check_known(names, ids)
        return class_vectors(texts, ids)

    def _check_known(self, names: tuple[str, ...], ids: Int32[np.ndarray, "n templates l"]) -> None:
        """UserError where a list of words takes two classes for one: those that it does not know are all the same."""
        first: dict[bytes, str] = {}
        for name, of_class in zip(names, ids, strict=True):
            other = first.setdefault(of_class.tobytes(), name)
            if self._only_words and name and other != name:
                raise UserError(
                    f"classes {other!r} and {name!r} are the same to method.tokenizer.words, which know too few "
                    "of their words: leave one out of the classes, or train with more words"
                )
