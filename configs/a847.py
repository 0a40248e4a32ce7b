"""Supervised by the masks of all 847 classes of ADE20K. Table 3, row "Supervised".

    python train.py --config=configs/a847.py

Paper, mIoU all / base / novel: 18.6 / 40.6 / 15.9. Here: not yet run.
"""

import ml_collections

from configs import paper


def get_config() -> ml_collections.ConfigDict:
    """The experiment that the head of this file describes."""
    config = paper.experiment("a847", ("ade20k_full_847",), evaluate="ade20k_full_847")
    config.streams.ade = paper.masks("ade20k_full_847", batch_size=16, weight=1.0)
    return config
