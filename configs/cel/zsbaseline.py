"""ZSBaseline (Xu et al., "A Simple Baseline", ECCV 2022), the row of LarvSeg's Table 3, as CEL's network. Not yet run.

    larvseg text_vectors @names.txt --weights=clip-vit-b16.safetensors --templates=vild_14 --out=coco_ade.npz
    python train.py --config=configs/cel/zsbaseline.py

COCO-Stuff's masks, each label tied to its mask, a learnt vector for "no object", two layers from a query to the text,
6 decoder layers; ADE20K's classes are known by name. In data_root: coco_stuff_171/1.0.0, ade20k_150/1.0.0.

`Original:` MaskFormer, whose decoder attends to a whole map and not within masks, and a focal loss of all pixels; here
Mask2Former's decoder and points. CLIP's ensemble at the test is `method.ensemble`.

Paper (LarvSeg), mIoU of all / base / novel classes in %: A150 17.7 / 31.0 / 9.3; A847 5.2 / 14.7 / 4.1.
"""

import ml_collections

from configs import common
from configs.cel import parts
from larvseg_jax.vocabulary.class_lists import class_list


def get_config(text: str = "coco_ade.npz") -> ml_collections.ConfigDict:
    """Argument: the file of text vectors, 512 numbers each."""
    config = parts.experiment("zsbaseline", text, 512)
    given = common.parse_arguments("pretrain", first="stage", **parts.PAPER_ARGUMENTS)
    parts.paper_sizes(config, given, side=640, steps=60_000)
    base = class_list("coco_stuff_171").ids
    others = [name for name in class_list("ade20k_150").ids if name not in base]
    config.vocabulary.update(classes=(*base, *others), base=base, novel=tuple(others))
    source = common.source(tfds="coco_stuff_171/1.0.0", split="train")
    parts.photos(config, given, (), source=source, classes=base, **parts.crops(640), max_labels=32)
    config.name = "zsbaseline"
    config.streams.photos.batch_size = 32
    config.method.decoder.update(layers=6, class_layers=2)
    config.method.mask.update(kind="focal", ce_weight=20.0, dice_weight=1.0)
    config.method.classes.weight = config.method.matching.class_weight = 1.0
    config.optimizer.update(learning_rate=1e-4, schedule="polynomial")
    source = common.source(tfds="ade20k_150/1.0.0", split="val")
    config.evals = dict(a150=parts.evaluation(640, source=source, classes=class_list("ade20k_150").ids))
    return config
