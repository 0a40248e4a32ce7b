"""The options of ViL-Seg (Liu et al., ECCV 2022). What the paper leaves open is an option; docs/vilseg.md says why."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from data_pipelines.caption_views import CaptionView
from larvseg_jax.errors import UserError
from larvseg_jax.methods.vilseg.clusters import Over
from larvseg_jax.methods.vilseg.vision import Target
from larvseg_jax.models.text import TextConfig
from larvseg_jax.options import Count, Least
from larvseg_jax.text import prompts
from larvseg_jax.text.tokenizer import TokenizerConfig


@dataclasses.dataclass(frozen=True)
class StreamLoss:
    """What a stream of captions adds to the loss: weight * (L_vision + L_cross + L_cluster, each by its own weight)."""

    weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """The section `method.encoder`."""

    # What stands for a picture: the mean of its patches, which regions are read as, too, or CLIP's class token, which
    # only pretrained weights know.
    pool: Literal["mean", "cls"] = "mean"


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """The section `method.vision`: L_vision (Eq. 2)."""

    weight: Annotated[float, Least(0)] = 1.0  # 0: the loss is left out (Table 2, "w/o L_vision")
    # What local views are compared with: centred and sharpened constants, those of a running mean of the network,
    # plain constants, or Eq. 2 as printed; the last two collapse.
    target: Target = "centered"
    student_temperature: float = 0.1  # of the local views; 1 in "stopgrad" and "literal"
    target_temperature: float = 0.04  # of the whole pictures; likewise
    center_momentum: float = 0.9  # of the running mean of the whole pictures' logits
    teacher_momentum: float = 0.996  # of the network's running mean ("ema_teacher")
    dim: Count = 2048  # outcomes of Phi_a
    normalise: bool = False  # Phi_a sees unit vectors, as DINO's last layer does: its logits cannot outrun the centre

    def __post_init__(self) -> None:
        for name in ("student_temperature", "target_temperature"):
            if getattr(self, name) <= 0:
                raise UserError(f"vision.{name} is {getattr(self, name)}: give a number above 0")

    @property
    def keeps_center(self) -> bool:
        """Whether a centre is taken off."""
        return self.weight > 0 and self.target in ("centered", "ema_teacher")

    @property
    def has_teacher(self) -> bool:
        """Whether there is a second network."""
        return self.weight > 0 and self.target == "ema_teacher"

    @property
    def temperatures(self) -> tuple[float, float]:
        """Of the local views and of the whole pictures."""
        plain = self.target in ("stopgrad", "literal")
        return (1.0, 1.0) if plain else (self.student_temperature, self.target_temperature)


@dataclasses.dataclass(frozen=True)
class CrossConfig:
    """The section `method.cross`: L_cross (Eq. 3 and 4)."""

    weight: Annotated[float, Least(0)] = 1.0
    temperature: Literal["learned", "fixed"] = "learned"  # tau of the cosines; begins, or stays, at 0.07
    symmetric: bool = False  # each caption is to find its picture, too; better for small batches


@dataclasses.dataclass(frozen=True)
class ClusterConfig:
    """The section `method.cluster`: L_cluster = -I(J) (Eq. 6 to 8)."""

    weight: Annotated[float, Least(0)] = 1.0
    num: Annotated[int, Least(2)] = 20  # C: clusters of a picture (Paper: 25 in Sec. 4.1, 20 in Sec. 4.3)
    heads: Count = 1  # clustering heads side by side; the best one is used
    symmetric: bool = False  # a pair of patches counts both ways, as in IIC
    over: Over = "batch"  # I(J) of all patches (Eq. 7), or `Paper:` not so: the mean of I(J) of each picture
    stop_gradient: bool = False  # L_cluster moves the head alone (Eq. 1 and 5 as printed), not the encoder (Sec. 4.3)
    marginal_weight: float = 1.0  # IIC's lambda: above 1 it pulls clusters to be of one size


@dataclasses.dataclass(frozen=True)
class ReadConfig:
    """The section `method.eval`: how clusters become classes."""

    clusters: Literal["head", "kmeans"] = "head"  # kmeans: of each window's patches, whatever the head says
    upsample: Literal["logits", "labels"] = "logits"  # what is resized: the clusters' logits, or the regions' scores
    normalise_pixels: bool = False  # patches become unit vectors before their mean is taken
    templates: str = "a photo of a {}."  # prompt of a class, or the name of a set: imagenet_80, vild_14

    def __post_init__(self) -> None:
        prompts.templates(self.templates)


@dataclasses.dataclass(frozen=True)
class Options:
    """The section `method` of a run that trains ViL-Seg."""

    name: Literal["vilseg"] = "vilseg"
    width: Count = 512  # D: of the space that patches, pictures and texts share
    text: TextConfig = TextConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()  # of captions and prompts; its streams have the same as `text`
    encoder: EncoderConfig = EncoderConfig()
    vision: VisionConfig = VisionConfig()
    cross: CrossConfig = CrossConfig()
    cluster: ClusterConfig = ClusterConfig()
    eval: ReadConfig = ReadConfig()

    def loss_options(self, view: type) -> type[StreamLoss]:
        """Of a stream with such a view."""
        if issubclass(view, CaptionView):
            return StreamLoss
        raise UserError(f"ViL-Seg learns from captions; a stream with {view.__name__} teaches it nothing")
