"""COCO-Stuff masks (C171), image labels of ADE20K (WA150) and ImageNet pictures (I124). Table 3 and Table 4.

    python train.py --config=configs/c171_wa150_i124.py                 LarvSeg        33.7 / 41.3 / 28.8
    python train.py --config=configs/c171_wa150_i124.py:ca=off          baseline       31.3 / 40.7 / 25.3
    python train.py --config=configs/c171_wa150_i124.py:ca=imagenet     CA-Classifier on I124 alone     32.1
    python train.py --config=configs/c171_wa150_i124.py:ca=ade          on WA150 alone           33.1
    ... :paper    :share=synset    :share=none    :duplicates=separate    :sample=100

Right: the paper's mIoU on A150, all / base / novel with 58 base classes. Here: not yet run.
K = 40 as in the released configs; the paper says 20. All arguments: configs/paper.py.
"""

import ml_collections

from configs import common, paper


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """The experiment that the head of this file describes."""
    args = common.parse_arguments(arguments, **paper.METHOD)
    lists = ("ade20k_150", "coco_stuff_171", "imagenet21k_subset_124")
    config = paper.experiment(common.run_name("c171_wa150_i124", arguments), lists, "ade20k_150")
    lambdas = dict(lambda_cls=0.2, lambda_aux=0.1)
    config.streams.c171 = paper.masks("coco_stuff_171", batch_size=6, weight=3 / 8)
    config.streams.ade = paper.tags_of_crops("ade20k_150", batch_size=6, weight=3 / 8, **lambdas)
    config.streams.imagenet = paper.imagenet("imagenet21k_subset_124", batch_size=4, weight=2 / 8, **lambdas)
    paper.mined(config)
    config.method.ca_classifier.foreground_topk = 40
    return paper.apply(config, args)
