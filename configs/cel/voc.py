"""CEL on PASCAL VOC: masks of 15 classes, 5 unseen. Not yet run.

    larvseg text_vectors voc_20 --weights=clip-vit-b16.safetensors --templates=imagenet_80 --out=voc.npz
    python train.py --config=configs/cel/voc.py:stage=pretrain                 Mask2Former on the seen classes
    python train.py --config=configs/cel/voc.py:labels=pseudo --config.pretrained=runs/cel_voc_pretrain
    ... --config=configs/cel/voc.py:labels=none

In data_root: voc_20/1.0.0, whose background pixels have no class, as in the works that the paper compares with; and
for labels=pseudo pseudo_labels.json. Otherwise as configs/cel/coco_stuff.py, whose header says what differs.

Paper, mIoU of seen / unseen classes and hIoU in %: 88.5 / 74.8 / 81.1 (Table 2); without CLIP's ensemble at the test
(method.ensemble) 82.7 / 62.2 / 71.0 (Table 4).
"""

import ml_collections

from configs import common
from configs.cel import parts


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """Arguments: text=FILE of vectors of 512 numbers; PAPER_ARGUMENTS of configs/cel/parts.py."""
    given = common.parse_arguments(arguments, first="stage", text="voc.npz", **parts.PAPER_ARGUMENTS)
    config = parts.experiment("cel_voc", given.text, 512)
    parts.paper_sizes(config, given, side=512, steps=5000)
    config.method.ensemble.weight = 0.7
    parts.split(config, given, "voc_15_5", side=512, max_labels=16)
    return config
