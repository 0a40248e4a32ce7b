"""COCO-Stuff masks (C171), image labels of ADE20K (WA847) and ImageNet pictures (I585). Table 3.

    python train.py --config=configs/c171_wa847_i585.py                 LarvSeg        13.2 / 30.4 / 11.1
    python train.py --config=configs/c171_wa847_i585.py:ca=off          baseline       11.9 / 28.5 / 9.9
    python train.py --config=configs/c171_wa847_i585.py:ca=imagenet     CA-Classifier on I585 alone
    python train.py --config=configs/c171_wa847_i585.py:ca=ade          on WA847 alone
    ... :paper    :share=synset    :share=none    :duplicates=separate    :sample=100

Right: the paper's mIoU on A847, all / base / novel with 92 base classes. Here: not yet run.
The released LarvSeg run samples 100 classes a step; here all take part. All arguments: configs/paper.py.
"""

import ml_collections

from configs import common, paper


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """The experiment that the head of this file describes."""
    args = common.parse_arguments(arguments, **paper.METHOD)
    lists = ("ade20k_full_847", "coco_stuff_171", "imagenet21k_subset_585")
    config = paper.experiment(common.run_name("c171_wa847_i585", arguments), lists, "ade20k_full_847")
    lambdas = dict(lambda_cls=0.2, lambda_aux=0.1)
    config.streams.c171 = paper.masks("coco_stuff_171", batch_size=6, weight=3 / 8)
    config.streams.ade = paper.tags_of_crops("ade20k_full_847", batch_size=6, weight=3 / 8, **lambdas)
    config.streams.imagenet = paper.imagenet("imagenet21k_subset_585", batch_size=4, weight=2 / 8, **lambdas)
    paper.mined(config)
    return paper.apply(config, args)
