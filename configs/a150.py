"""Supervised by the masks of all 150 classes of ADE20K. Table 3, row "Supervised", and Table 1, row "A150".

    python train.py --config=configs/a150.py
    python -m larvseg_jax.oracle --run=runs/a150 --data=ade20k_150/1.0.0 --class_list=ade20k_150
    python -m larvseg_jax.oracle --run=runs/a150 --data=ade20k_full_847/1.0.0 --class_list=ade20k_full_847

Paper, mIoU all / base / novel: 48.6 / 56.2 / 43.7. Table 1, novel classes: A150 49.0, A847 37.8. Here: not yet run.
"""

import ml_collections

from configs import paper


def get_config() -> ml_collections.ConfigDict:
    """The experiment that the head of this file describes."""
    config = paper.experiment("a150", ("ade20k_150",), evaluate="ade20k_150")
    config.streams.ade = paper.masks("ade20k_150", batch_size=16, weight=1.0)
    return config
