"""COCO-Stuff masks (C171) and the image labels of ADE20K-Full (WA847). Table 3.

    python train.py --config=configs/c171_wa847.py                         LarvSeg             10.9 / 29.0 / 8.7
    python train.py --config=configs/c171_wa847.py:ca=off                  baseline             8.9 / 28.7 / 6.6
    python train.py --config=configs/c171_wa847.py:sample=100              LarvSeg with 100 classes a step, as released
    ... :paper    :share=synset    :share=none    :duplicates=separate

Right: the paper's mIoU on A847, all / base / novel with 92 base classes. Here: not yet run. The released LarvSeg run
samples classes and the baseline does not; here both take all 847. All arguments: configs/paper.py.
"""

import ml_collections

from configs import common, paper


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """The experiment that the head of this file describes."""
    args = common.parse_arguments(arguments, **paper.METHOD)
    lists = ("ade20k_full_847", "coco_stuff_171")
    config = paper.experiment(common.run_name("c171_wa847", arguments), lists, "ade20k_full_847")
    config.streams.c171 = paper.masks("coco_stuff_171", batch_size=8, weight=1 / 2)
    config.streams.ade = paper.tags_of_crops(
        "ade20k_full_847", batch_size=8, weight=1 / 2, lambda_cls=0.2, lambda_aux=0.1
    )
    return paper.apply(config, args)
