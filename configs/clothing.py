"""Clothing Co-Parsing: masks for 16 base garments; jeans, skirt, jacket, ... from the photos' tags only.

Real photographs on a CPU: small pictures, a small ViT with a convolutional stem, from scratch.
The folder `ccp` (images/, masks/, classes.json, splits.json) is looked for in data_root.

    LARVSEG_DATA=<folder with ccp> python train.py --config=configs/clothing.py
    ... --config=configs/clothing.py:baseline           without the CA-Classifier

Measured: docs/results.md.
"""

import ml_collections

from configs import common

BASE = (
    *("skin", "hair", "footwear", "bag", "pants", "dress", "coat", "suit", "sweater", "shirt", "blouse"),
    *("legwear", "socks", "belt", "vest", "accessories"),
)
NOVEL = ("jeans", "shorts", "skirt", "jacket", "t-shirt", "scarf", "hat", "glasses")


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """Arguments: larvseg (default) or baseline (image-level loss, no attention); learn=K for DINOv2's ViT-S/14."""
    given = common.parse_arguments(arguments, first="method", method="larvseg", learn=-1, side=224)
    method = given.method
    config = common.small_photos(method)
    config.name = f"clothing_{method}"
    config.vocabulary = dict(
        classes=("background", *BASE, *NOVEL),
        base=BASE,
        novel=NOVEL,
        background="background",
        ignore_in_eval=(),
    )
    config.streams.masks.source = common.source(folder="ccp", split="train")
    config.streams.masks.classes = ("background", *BASE)
    config.streams.tags.source = common.source(folder="ccp", split="train_image_labels_only")
    config.evals.val.source = common.source(folder="ccp", split="val")
    if given.learn >= 0:
        common.use_dinov2_on_photos(config, given.learn, given.side)
        config.name += f"_dinov2_learn{given.learn}_{given.side}"
    return config
