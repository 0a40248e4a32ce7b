"""The data sets that can be prepared: python -m data_pipelines.prepare NAME --from=DIR; flags: commands/prepare.py."""

from data_pipelines.builders.ade20k import Ade20k
from data_pipelines.builders.ade20k_full import Ade20kFull
from data_pipelines.builders.captions import Captions
from data_pipelines.builders.cityscapes import Cityscapes
from data_pipelines.builders.coco_stuff import CocoStuff
from data_pipelines.builders.download_builder import DownloadBuilder
from data_pipelines.builders.imagenet21k import ImageNet21k, ImageNet21kSubset124, ImageNet21kSubset585
from data_pipelines.builders.imagenet_s import ImageNetS
from data_pipelines.builders.pascal_context import PascalContext59, PascalContext459
from data_pipelines.builders.pascal_voc import PascalVoc
from larvseg_jax import cli

BUILDERS: dict[str, type[DownloadBuilder]] = {
    builder.name: builder
    for builder in (
        CocoStuff,
        Ade20k,
        Ade20kFull,
        PascalVoc,
        PascalContext59,
        PascalContext459,
        Cityscapes,
        ImageNet21k,
        ImageNet21kSubset124,
        ImageNet21kSubset585,
        ImageNetS,
        Captions,
    )
}
"""Name of a data set -> its builder."""

if __name__ == "__main__":
    cli.run("prepare")
