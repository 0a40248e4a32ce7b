"""CLIP: pictures and texts in one space (Radford et al. 2021).

Letters: b pictures or texts, h x w patch grid, l ids of a text, d width of the space, e width of a tower.
"""

from __future__ import annotations

import math
import re
import zlib
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int, PyTree

from larvseg_jax.devices.sharding import path_name
from larvseg_jax.models.attention import Attention
from larvseg_jax.models.partial import StoredTokens, backbone_from
from larvseg_jax.models.precision import precise_einsum
from larvseg_jax.models.text import TextConfig, TextMlp, TextTower, at_end
from larvseg_jax.models.vit import Tokens
from larvseg_jax.models.vit_config import ViTConfig

FIRST_LOGIT_SCALE = math.log(1 / 0.07)
_MOST_LOGIT_SCALE = math.log(100)


class Embedded(NamedTuple):
    """What CLIP says of pictures, not normalised.

    Attributes:
      cls: of the class token: what CLIP itself compares with texts; None if the backbone has none.
      patches: of the patches, through the same norm and projection.
    """

    cls: Float[Array, "b d"] | None
    patches: Float[Array, "b h w d"]


class Clip(nn.Module):
    """Both towers and their projections.

    Parameters: backbone/..., image_projection, text/..., text_projection, logit_scale (a natural logarithm).

    Attributes:
      vit: sizes of the image tower.
      text_config: sizes of the text tower.
      width: of the common space.
      vocabulary, context: as the tokenizer has them.
      attention, still: as in VisionTransformer.
      first: the block of the image tower that it begins with, from tokens; 0: from pictures.
    """

    vit: ViTConfig
    text_config: TextConfig
    width: int
    vocabulary: int
    context: int
    attention: Attention = "all_heads"
    still: int = 0
    first: int = 0

    def setup(self) -> None:
        self.backbone = backbone_from(self.first, self.vit, self.attention, self.still)
        mlp: TextMlp = "quick_gelu" if self.vit.mlp == "quick_gelu" else "gelu"
        self.text = TextTower(self.text_config, self.vocabulary, self.context, mlp)
        normal = nn.initializers.normal
        self.image_projection = self.param("image_projection", normal(1.0), (self.vit.width, self.width))
        self.text_projection = self.param("text_projection", normal(1.0), (self.text_config.width, self.width))
        self.logit_scale = self.param("logit_scale", nn.initializers.constant(FIRST_LOGIT_SCALE), ())

    def __call__(
        self, images: Float[Array, "b height width 3"], ids: Int[Array, "n l"], *, train: bool = False
    ) -> tuple[Embedded, Float[Array, "n d"]]:
        """Pictures and texts; train=True needs a "drop_path" random key if the backbone drops paths."""
        return self.images(images, train=train), self.texts(ids)

    def images(self, images: Float[Array, "b height width 3"] | StoredTokens, *, train: bool = False) -> Embedded:
        """Class token and patches of pictures of any size; of stored tokens the patches alone."""
        found = self.backbone(images, train=train)
        tokens = found if isinstance(found, Tokens) else Tokens(None, found)
        return Embedded(None if tokens.cls is None else self.projected(tokens.cls), self.projected(tokens.patches))

    def projected(self, tokens: Float[Array, "*batch e"]) -> Float[Array, "*batch d"]:
        """Final-normed tokens of the image tower in the common space."""
        return precise_einsum("...e,ed->...d", tokens, self.image_projection)

    def texts(self, ids: Int[Array, "n l"]) -> Float[Array, "n d"]:
        """Texts by their ids, of which the largest is the end; not normalised."""
        return precise_einsum("ne,ed->nd", at_end(self.text(ids), ids), self.text_projection)

    def scale(self) -> Float[Array, ""]:
        """What cosines are multiplied with: at most 100."""
        return jnp.exp(jnp.minimum(self.logit_scale, _MOST_LOGIT_SCALE))


def pooled(embedded: Embedded, pool: Literal["cls", "mean"]) -> Float[Array, "b d"]:
    """One vector for each picture: of the class token, or the mean of the patches."""
    if pool == "cls":
        if embedded.cls is None:
            raise ValueError("the backbone has no class token")
        return embedded.cls
    return jnp.mean(embedded.patches, axis=(1, 2))


def contrastive_logits(
    images: Float[Array, "b d"], texts: Float[Array, "n d"], scale: Float[Array, ""]
) -> Float[Array, "b n"]:
    """Scaled cosines."""
    return scale * precise_einsum("bd,nd->bn", normalised(images), normalised(texts))


def normalised(vectors: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
    """Of length 1. `Original:` no epsilon; one here, whose gradient is finite where a vector is 0."""
    squares = jnp.sum(jnp.square(vectors), -1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))


def fresh_parameters(model: Clip, key: Array) -> PyTree:
    """Parameters to train from scratch, drawn as CLIP's (its model.py, initialize_parameters).

    `Original:` biases of linear layers in the MLPs are drawn, too; they begin at nearly 0 here.
    """
    side, patch = model.vit.image_size, model.vit.patch_size
    picture, ids = jnp.zeros((1, max(side, patch), max(side, patch), 3)), jnp.zeros((1, 1), jnp.int32)
    params = model.init(key, picture, ids)["params"]
    deviations = _deviations(model)

    def drawn(path: tuple, fresh: Array) -> Array:
        name = path_name(path)
        for pattern, deviation in deviations:
            if re.search(pattern, name):
                own = jax.random.fold_in(key, zlib.crc32(name.encode()))
                return deviation * jax.random.normal(own, fresh.shape, fresh.dtype)
        return fresh

    return jax.tree_util.tree_map_with_path(drawn, params)


def _deviations(model: Clip) -> tuple[tuple[str, float], ...]:
    """Standard deviations of normal distributions, the first that matches.

    `Original:` the image tower's blocks and patches are uniform, as PyTorch has them by default, of the same variance.
    """
    image, text = model.vit, model.text_config
    e, t, deep = image.width, text.width, (2 * text.depth) ** -0.5
    uniform = 3**-0.5  # PyTorch's linear layers: variance 1 / (3 inputs)
    return (
        ("^image_projection$|^backbone/cls$|posembed_input/pos_embedding$", e**-0.5),
        ("^backbone/embedding/kernel$", uniform * (3 * image.patch_size**2) ** -0.5),
        ("^backbone/.*/(query|key|value)/kernel$", (2 * e) ** -0.5),
        ("^backbone/.*/(out|Dense_0)/kernel$", uniform * e**-0.5),
        ("^backbone/.*/Dense_1/kernel$", uniform * image.mlp_dim**-0.5),
        ("^text_projection$|^text/.*/(query|key|value)/kernel$", t**-0.5),
        ("^text/.*/(out|Dense_1)/kernel$", t**-0.5 * deep),
        ("^text/.*/Dense_0/kernel$", (2 * t) ** -0.5),
    )
