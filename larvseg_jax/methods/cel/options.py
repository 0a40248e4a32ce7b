"""The options of CEL (Zhao et al.). What the paper leaves open is an option; docs/cel.md says why."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from data_pipelines.mask_tag_views import MaskTagView
from larvseg_jax.errors import UserError
from larvseg_jax.methods.cel.class_losses import ClassLoss, RankLoss
from larvseg_jax.methods.cel.mask_losses import MaskLoss, Where
from larvseg_jax.methods.cel.matching import ClassCost
from larvseg_jax.methods.crops import Fill
from larvseg_jax.models.resnet import ResNetConfig
from larvseg_jax.options import Count, Least
from larvseg_jax.text.prompts import templates
from larvseg_jax.text.vectors import TextClasses


@dataclasses.dataclass(frozen=True)
class StreamLoss:
    """What a stream of masks and tags adds to the loss: weight * L (Eq. 8)."""

    weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """The section `method.decoder`: from the patches of a picture to its queries; the defaults are Mask2Former's."""

    queries: Count = 100  # proposals of a picture
    layers: Count = 9
    width: Count = 256  # of the queries and of the pixel decoder's maps
    num_heads: Count = 8
    mlp_dim: Count = 2048
    mask_width: Count = 256  # of the mask features
    class_layers: Literal[1, 2] = 1  # from a query to the space of the text; of two the first is twice as wide
    pixels: Literal["fpn", "msdeform"] = "fpn"  # pixel decoder: a feature pyramid, or deformable attention
    pixel_layers: Count = 6  # of deformable attention
    pixel_mlp_dim: Count = 1024  # of these layers
    masks_per_patch: Literal[2, 4] = 4  # the mask grid has so many elements along the side of a patch

    def __post_init__(self) -> None:
        if self.width % self.num_heads or self.width % 2:
            raise UserError(f"decoder.width is {self.width}: give an even multiple of num_heads={self.num_heads}")
        if self.pixels == "msdeform" and self.masks_per_patch != 4:
            raise UserError("decoder.pixels=msdeform reads four maps: set decoder.masks_per_patch to 4")


@dataclasses.dataclass(frozen=True)
class MatchingConfig:
    """The section `method.matching`: which queries answer for the labels of a picture (Sec. 3.2)."""

    # Classes and masks apart (`Paper:`); together, each label with its mask, as Mask2Former has it (labels without a
    # mask teach nothing); or together where there is a mask, and the other labels on the queries that are left.
    classes: Literal["unpaired", "paired", "paired_seen"] = "unpaired"
    class_cost: ClassCost = "similarity"  # `Paper:`; Mask2Former: probability
    class_weight: float = 2.0  # of that cost beside those of a mask; where classes are matched alone it does not matter


@dataclasses.dataclass(frozen=True)
class MaskConfig:
    """The section `method.mask`: the losses of the matched masks; their weights are those of the matching, too."""

    ce_weight: Annotated[float, Least(0)] = 5.0
    dice_weight: Annotated[float, Least(0)] = 5.0
    kind: MaskLoss = "ce"
    where: Where = "anywhere"  # which of the points count, in the losses and in the matching
    # Where masks are compared, of a mask; the matching has as many. `Paper:` not said, Mask2Former's number
    points: Annotated[int, Least(4)] = 12_544
    # Times `points` are drawn, of which three quarters of `points` are kept, the least certain; Mask2Former's number
    candidates: Count = 3


@dataclasses.dataclass(frozen=True)
class ClassConfig(ClassLoss):
    """The section `method.classes`: L_class (Eq. 5)."""

    weight: Annotated[float, Least(0)] = 2.0
    # What queries without a label are to say: no class more than any other (KL, `Paper:`), or a learnt vector of its
    # own, "no object" (Mask2Former; Table 6's first row), for which the options of KL do not matter.
    unmatched: Literal["uniform", "background"] = "uniform"
    background_weight: float = 0.1  # of queries without a label in the cross entropy of "background"


@dataclasses.dataclass(frozen=True)
class RankConfig(RankLoss):
    """The section `method.rank`: L_rank (Eq. 6 and 7)."""

    weight: Annotated[float, Least(0)] = 1.0  # 0: without it
    outputs: Literal["all", "last"] = "all"  # of the decoder, that it is taken of


@dataclasses.dataclass(frozen=True)
class EnsembleConfig:
    """The section `method.ensemble`: what a CLIP says of crops of the proposals; of evaluations, not of a training."""

    kind: Literal["none", "simple", "zegformer"] = "none"  # as Xu et al. (`Paper:` after training), as ZegFormer
    clip: str = ""  # a CLIP's file, or a trained model of a method that reads text: run, checkpoint or export
    weight: float = 0.8  # w of "simple": `Paper:` 0.8 on COCO-Stuff, 0.7 on VOC; ZegFormer's is 2/3
    seen: Literal["base", "none"] = "base"  # classes of which the queries are believed more; none: CLIP is, of all
    templates: str = ""  # sentences for the names (text/prompts.py), which CLIP's text tower reads; "": its own
    fill: Fill = "mean"  # outside its mask a crop has CLIP's mean colour (`Paper:`), or is as it is

    def __post_init__(self) -> None:
        if self.kind != "none" and not self.clip:
            raise UserError(f"ensemble.kind={self.kind} asks a CLIP: give its file or run, method.ensemble.clip")
        if not 0 <= self.weight <= 1:
            raise UserError(f"ensemble.weight is {self.weight}: give a number from 0 to 1")
        if self.templates:
            templates(self.templates)


@dataclasses.dataclass(frozen=True)
class Options:
    """The section `method` of a run that trains CEL."""

    text: TextClasses  # T: the vectors of the classes' names, which stay as they are
    name: Literal["cel"] = "cel"
    temperature: float = 0.01  # tau of the cosines; not trained
    backbone: Literal["vit", "resnet"] = "vit"  # that of the section `model`, or a ResNet in its place (`Paper:` 50)
    resnet: ResNetConfig = ResNetConfig()  # its sizes; ResNet-101: depths=(3, 4, 23, 3)
    decoder: DecoderConfig = DecoderConfig()
    matching: MatchingConfig = MatchingConfig()
    mask: MaskConfig = MaskConfig()
    classes: ClassConfig = ClassConfig()
    rank: RankConfig = RankConfig()
    ensemble: EnsembleConfig = EnsembleConfig()

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise UserError(f"temperature is {self.temperature}: use a number above 0, such as 0.01")
        if not self.text.width:
            raise UserError("CEL classifies by text vectors: give method.text.vectors and .width (docs/cel.md)")
        if self.backbone == "resnet" and self.decoder.masks_per_patch != 4:
            raise UserError("a ResNet has four maps, the finest of every 4 pixels: set decoder.masks_per_patch to 4")

    def loss_options(self, view: type) -> type[StreamLoss]:
        """Of a stream with such a view."""
        if issubclass(view, MaskTagView):
            return StreamLoss
        raise UserError(
            f"CEL learns from masks and tags of the same photos; a stream with {view.__name__} teaches it nothing: "
            "take one of kind masks_and_tags"
        )
