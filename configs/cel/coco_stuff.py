"""CEL on COCO-Stuff: masks of 156 classes, 15 unseen (the splits of SPNet). Not yet run.

    larvseg text_vectors @names.txt --weights=clip-vit-b16.safetensors --templates=imagenet_80 --out=coco_stuff.npz
    python train.py --config=configs/cel/coco_stuff.py:stage=pretrain       Mask2Former, seen classes (docs/cel.md)
    python train.py --config=configs/cel/coco_stuff.py:labels=pseudo --config.pretrained=runs/cel_coco_stuff_pretrain
    ... --config=configs/cel/coco_stuff.py:labels=none                      the other rows of Table 5
    ... --config=configs/cel/coco_stuff.py:labels=true
    ... --config=configs/cel/coco_stuff.py:labels=true,unmatched=background,rank=0    those of Table 6
    ... --config=configs/cel/coco_stuff.py:labels=true,rank=0
    ... --config=configs/cel/coco_stuff.py:stage=pretrain,backbone=resnet50    the paper's backbone and pixel decoder

names.txt: the ids of the class list, one a line. In data_root: coco_stuff_171/1.0.0, and for labels=pseudo
pseudo_labels.json. The backbone is a ViT-B/16 of AugReg in the place of ResNet-50, the pixel decoder a feature pyramid;
backbone=resnet50 (in both stages) has the paper's two, and begins with torchvision's resnet50-0676ba61.pth. What else
the paper leaves open, and what was chosen: docs/cel.md.

Paper, mIoU of seen / unseen classes and hIoU in %, all with CLIP's ensemble at the test (method.ensemble):

    CEL, pseudo labels (Table 1)     38.6 / 42.0 / 40.2      the same without the ensemble (Table 4)  37.2 / 35.5 / 36.4
    no labels of unseen (Table 5)    40.1 / 25.3 / 31.0      true ones     39.0 / 52.2 / 44.7
    true labels (Table 6): background 36.7 / 35.2 / 35.9     KL            31.8 / 38.9 / 35.0
                           KL and ranking                                  38.4 / 50.1 / 43.5
                           and mean over templates                         39.0 / 52.2 / 44.7
"""

import ml_collections

from configs import common
from configs.cel import parts


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """Arguments: text=FILE of vectors of 512 numbers; PAPER_ARGUMENTS of configs/cel/parts.py."""
    given = common.parse_arguments(arguments, first="stage", text="coco_stuff.npz", **parts.PAPER_ARGUMENTS)
    config = parts.experiment("cel_coco_stuff", given.text, 512)
    parts.paper_sizes(config, given, side=640, steps=50_000)
    parts.split(config, given, "coco_stuff_156_15", side=640, max_labels=32)
    return config
