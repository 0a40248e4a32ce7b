"""CLIP's two towers, and the two heads of ViL-Seg."""

from __future__ import annotations

from flax import linen as nn
from jaxtyping import Array, Float, Int

from larvseg_jax.methods.method import Seen
from larvseg_jax.models.clip import Clip, Embedded
from larvseg_jax.models.partial import StoredTokens
from larvseg_jax.models.precision import precise_einsum


def linear(
    features: Float[Array, "*batch d"], kernel: Float[Array, "d c"], bias: Float[Array, " c"]
) -> Float[Array, "*batch c"]:
    """Phi_a and Phi_c before their softmax; on a map of patches a 1x1 convolution."""
    return precise_einsum("...d,dc->...c", features, kernel) + bias.reshape((1,) * (features.ndim - 1) + (-1,))


class Head(nn.Module):
    """`linear` with its parameters."""

    outputs: int

    @nn.compact
    def __call__(self, features: Float[Array, "*batch d"]) -> Float[Array, "*batch c"]:
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (features.shape[-1], self.outputs))
        return linear(features, kernel, self.param("bias", nn.initializers.zeros, (self.outputs,)))


class Network(Clip):
    """Parameters beside those of Clip: view_head/... (Phi_a), cluster_head/... (Phi_c).

    Attributes:
      outcomes: of Phi_a.
      clusters: of Phi_c, those of several heads side by side.
      stored: the block that stored tokens enter.
    """

    outcomes: int = 2048
    clusters: int = 20
    stored: int = 0

    def setup(self) -> None:
        super().setup()
        self.view_head, self.cluster_head = Head(self.outcomes), Head(self.clusters)

    def __call__(
        self, images: Float[Array, "b height width 3"], ids: Int[Array, "n l"], *, train: bool = False
    ) -> tuple[Embedded, Float[Array, "n d"]]:
        """Pictures and texts; all parameters have a part in it."""
        embedded, texts = self.images(images, train=train), self.texts(ids)
        self.views(embedded.patches), self.cluster(embedded.patches)
        return embedded, texts

    def of(self, seen: Seen) -> Network:
        """The same network, beginning at what it is to see: pictures, or the tokens that are stored of them."""
        return self.clone(first=self.stored) if isinstance(seen, StoredTokens) else self

    def views(self, vectors: Float[Array, "*batch d"]) -> Float[Array, "*batch k"]:
        """Logits of Phi_a."""
        return self.view_head(vectors)

    def cluster(self, patches: Float[Array, "*batch d"]) -> Float[Array, "*batch c"]:
        """Logits of Phi_c."""
        return self.cluster_head(patches)
