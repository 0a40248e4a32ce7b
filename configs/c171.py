"""COCO-Stuff masks only. Table 1, row "C171": how well its features tell classes apart that it never saw.

    python train.py --config=configs/c171.py                  trains (evaluated on COCO-Stuff itself)
    python -m larvseg_jax.oracle --run=runs/c171 --data=ade20k_150/1.0.0 --class_list=ade20k_150
    python -m larvseg_jax.oracle --run=runs/c171 --data=ade20k_full_847/1.0.0 --class_list=ade20k_full_847

Paper, novel classes: A150 48.6, A847 36.1. Here: not yet run.
"""

import ml_collections

from configs import paper


def get_config() -> ml_collections.ConfigDict:
    """The experiment that the head of this file describes."""
    config = paper.experiment("c171", ("coco_stuff_171",), evaluate="coco_stuff_171")
    config.streams.c171 = paper.masks("coco_stuff_171", batch_size=16, weight=1.0)
    return config
