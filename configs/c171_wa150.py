"""COCO-Stuff masks (C171) and the image labels of ADE20K (WA150). Tables 3, 5 and 6.

    python train.py --config=configs/c171_wa150.py                         LarvSeg             32.4 / 41.3 / 26.8
    python train.py --config=configs/c171_wa150.py:ca=off                  baseline            28.5 / 40.9 / 20.8
    python train.py --config=configs/c171_wa150.py:variant=region          Table 5, one image  30.1 / 38.6 / 24.8
    python train.py --config=configs/c171_wa150.py:variant=own_bank        ... the other way the release has
    python train.py --config=configs/c171_wa150.py:bank=10,topk=40         Table 6, M = 10     32.6
    python train.py --config=configs/c171_wa150.py:bank=20,topk=40         M = 20              32.0 / 40.5 / 26.7
    python train.py --config=configs/c171_wa150.py:bank=40,topk=40         M = 40              32.2 / 42.0 / 26.1
    python train.py --config=configs/c171_wa150.py:bank=80,topk=40         M = 80              31.6
    python train.py --config=configs/c171_wa150.py:topk=10                 Table 6, K = 10     31.6
    python train.py --config=configs/c171_wa150.py:topk=20                 K = 20              32.4 / 41.3 / 26.8
    python train.py --config=configs/c171_wa150.py:topk=40                 K = 40              32.2 / 42.0 / 26.1
    python train.py --config=configs/c171_wa150.py:topk=80                 K = 80              31.4
    ... :paper    :share=synset    :share=none    :duplicates=separate    :sample=100

Right: the paper's mIoU on A150, all / base / novel with 58 base classes. The two rows M = 20 and K = 40 should be one
run. Here: not yet run. All arguments: configs/paper.py.
"""

import ml_collections

from configs import common, paper


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """The experiment that the head of this file describes."""
    args = common.parse_arguments(arguments, **paper.METHOD)
    config = paper.experiment(common.run_name("c171_wa150", arguments), ("ade20k_150", "coco_stuff_171"), "ade20k_150")
    config.streams.c171 = paper.masks("coco_stuff_171", batch_size=8, weight=1 / 2)
    config.streams.ade = paper.tags_of_crops(
        "ade20k_150", batch_size=8, weight=1 / 2, lambda_cls=0.1, lambda_aux=0.1, max_labels=64
    )
    return paper.apply(config, args)
