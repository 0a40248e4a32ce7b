"""From pictures to proposals: a backbone, a pixel decoder, and Mask2Former's decoder with a class branch of its own.

`Original:` the backbone is a ResNet-50; here a plain ViT, or a ResNet (`method.backbone`).

Letters: o outputs of the decoder, b pictures, q queries, e width of the text, d width, m of the masks,
H x W mask grid.
"""

from __future__ import annotations

from typing import NamedTuple

from flax import linen as nn
from jaxtyping import Array, Float

from larvseg_jax.methods.cel.options import DecoderConfig
from larvseg_jax.methods.method import Seen
from larvseg_jax.models.attention import Attention
from larvseg_jax.models.cosine_head import unit
from larvseg_jax.models.mask_decoder.decoder import MaskedDecoder, masks_of
from larvseg_jax.models.mask_decoder.fpn import FpnPixelDecoder
from larvseg_jax.models.mask_decoder.msdeform import MsDeformPixelDecoder
from larvseg_jax.models.mask_decoder.pyramid import FeaturePyramid
from larvseg_jax.models.partial import StoredTokens, backbone_from, patches_of
from larvseg_jax.models.resnet import ResNet, ResNetConfig
from larvseg_jax.models.vit_config import ViTConfig


class Proposed(NamedTuple):
    """The proposals of pictures, after each layer of the decoder and before the first one.

    Attributes:
      vectors: E^c, of unit length, in the space of the text.
      mask_vectors, mask_features: whose products are the masks.
    """

    vectors: Float[Array, "o b q e"]
    mask_vectors: Float[Array, "o b q m"]
    mask_features: Float[Array, "b H W m"]

    @property
    def masks(self) -> Float[Array, "o b q H W"]:
        """Logits of the masks."""
        return masks_of(self.mask_vectors, self.mask_features)


class Network(nn.Module):
    """Parameters: backbone/, pyramid/ (of a ViT), pixel_decoder/, decoder/, class_branch_*/, background.

    `background` is the vector of "no object"; trainings without it leave it as it was, so that they can begin where
    one with it has ended.

    Attributes:
      vit, attention, still: of the backbone, unless it is a ResNet.
      resnet: its sizes, if it is one; it computes in the dtype of `vit`.
      first: the block that stored tokens enter; 0: pictures.
    """

    vit: ViTConfig
    config: DecoderConfig
    text_width: int
    attention: Attention = "all_heads"
    still: int = 0
    first: int = 0
    resnet: ResNetConfig | None = None

    def setup(self) -> None:
        config = self.config
        if self.resnet is None:
            self.backbone = backbone_from(self.first, self.vit, self.attention, self.still)
            self.pyramid = FeaturePyramid(config.width, config.masks_per_patch)
        else:
            self.backbone = ResNet(self.resnet, self.vit.dtype)
        self.pixel_decoder = self._pixel_decoder()
        self.decoder = MaskedDecoder(
            config.width, config.num_heads, config.mlp_dim, config.layers, config.queries, config.mask_width
        )
        widths = [2 * self.text_width] * (config.class_layers - 1) + [self.text_width]
        self.class_branch = [nn.Dense(width) for width in widths]
        init = nn.initializers.normal(self.text_width**-0.5)
        self.background = self.param("background", init, (self.text_width,))

    def _pixel_decoder(self) -> nn.Module:
        config = self.config
        if config.pixels == "fpn":
            return FpnPixelDecoder(config.width, config.mask_width)
        return MsDeformPixelDecoder(
            config.width, config.num_heads, config.pixel_mlp_dim, config.pixel_layers, config.mask_width
        )

    def __call__(self, seen: Seen, *, train: bool = False) -> Proposed:
        """With train=True a "drop_path" random key is needed."""
        maps = self.pyramid(self.patches(seen, train=train)) if self.resnet is None else tuple(self.backbone(seen))
        decoded = self.decoder(*self.pixel_decoder(maps))
        vectors = self.class_branch[0](decoded.states)
        for layer in self.class_branch[1:]:
            vectors = layer(nn.relu(vectors))
        return Proposed(unit(vectors), decoded.mask_vectors, decoded.mask_features)

    def patches(self, seen: Seen, *, train: bool = False) -> Float[Array, "b h w d"]:
        """What the backbone says, whatever the proposals are; of a ResNet its last map."""
        return patches_of(self.backbone(seen, train=train)) if self.resnet is None else self.backbone(seen).res5

    def of(self, seen: Seen, first: int) -> Network:
        """The same network, beginning at what it is to see: pictures, or the tokens that enter block `first`."""
        return self.clone(first=first) if isinstance(seen, StoredTokens) else self
