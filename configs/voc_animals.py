"""Animals of PASCAL VOC: masks for person, cat, horse and furniture; dog, cow and sheep from tags only.

Real photographs on a CPU: small pictures, a small ViT with a convolutional stem, from scratch.
The folder `voc12_animals` (images/, masks/, classes.json, splits.json) is looked for in data_root.

    LARVSEG_DATA=<folder with voc12_animals> python train.py --config=configs/voc_animals.py
    ... --config=configs/voc_animals.py:baseline        without the CA-Classifier
    ... --config=configs/voc_animals.py:text=FILE.npz   classes are frozen text vectors (docs/lseg.md), by name;
                                                        untagged=cow: never tagged, known by its name alone

Measured: docs/results.md.
"""

import ml_collections

from configs import common

BASE = ("person", "cat", "horse", "sofa", "chair", "car", "pottedplant", "tvmonitor", "bottle", "diningtable")
NOVEL = ("dog", "cow", "sheep")
# Fewer than 20 photos each: left out of every mean.
RARE = ("aeroplane", "bicycle", "bird", "boat", "bus", "motorbike", "train")


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """Arguments: larvseg (default) or baseline (image-level loss, no attention); learn=K for DINOv2's ViT-S/14.

    And text=FILE of vectors of `width` numbers; untagged=name+name.
    """
    given = common.parse_arguments(
        arguments, first="method", method="larvseg", learn=-1, side=224, text="", width=512, untagged=""
    )
    method = given.method
    config = common.small_photos(method)
    config.name = f"voc_animals_{method}"
    config.vocabulary = dict(
        classes=("background", *BASE, *NOVEL, *RARE),
        base=BASE,
        novel=NOVEL,
        background="background",
        ignore_in_eval=RARE,
    )
    known = ("background", *BASE, *NOVEL)
    folder = "voc12_animals"
    config.streams.masks.source = common.source(folder=folder, split="suggested.train_masks")
    config.streams.masks.classes = ("background", *BASE)
    # Tags of all training photos: those with masks show no novel class (that is how they were chosen), so their
    # tags say nothing of novel classes that the masks would know; without them hardly any tagged photo would
    # show a cat but no dog, and the tags could not tell the two apart.
    config.streams.tags.source = common.source(folder=folder, split="train")
    config.streams.tags.classes = known
    config.evals.val.source = common.source(folder=folder, split="val")
    config.evals.val.classes = known
    if given.learn >= 0:
        common.use_dinov2_on_photos(config, given.learn, given.side)
        config.name += f"_dinov2_learn{given.learn}_{given.side}"
    if given.text:
        use_text(config, given.text, given.width)
    if given.untagged:
        untagged = given.untagged.split("+")
        config.streams.tags.classes = tuple(name for name in known if name not in untagged)
        config.name += f"_untagged_{given.untagged}"
    return config


def use_text(config: ml_collections.ConfigDict, file: str, width: int) -> None:
    """Classifies by the text vectors of a file, which stay as they are, in place of learnt class embeddings."""
    config.method.text = dict(vectors=file, width=width)
    config.optimizer.frozen = "|".join(filter(None, (config.optimizer.frozen, "head/class_embeddings$")))
    config.name += "_text"
