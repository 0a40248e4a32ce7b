"""CEL on the animals of PASCAL VOC, on a CPU: masks of ten classes and the background; dog, cow and sheep are unseen.

    python train.py --config=configs/cel/voc_animals.py:stage=pretrain,text=voc.npz --config.data_root=DIR
    ... --config=configs/cel/voc_animals.py:text=voc.npz                       true labels of the unseen classes
    ... --config=configs/cel/voc_animals.py:labels=none,text=voc.npz
    ... --config=configs/cel/voc_animals.py:labels=pseudo,text=voc.npz         of pseudo_labels.json in data_root
    ... --config=configs/cel/voc_animals.py:frozen=false,text=voc.npz          the backbone learns, too

DIR has the folder `voc12_animals` (docs/data.md). Masks are those of all photos, also where they show unseen classes,
whose pixels have no class. On DINOv2's ViT-S/14: the first stage begins with its file (config.pretrained,
docs/weights.md), the second one with the first's run, --config.pretrained=runs/cel_voc_animals_pretrain. The file of
text vectors needs all classes of configs/voc_animals.py, the background too.

Measured: both stages with true labels, docs/results.md, 28, where two separate matchings of masks and names (the
paper's) fail for one seed of three; --config.method.matching.classes=paired_seen ties them where there are masks.
"""

import ml_collections

from configs import common, voc_animals
from configs.cel import parts


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """Arguments: text=FILE of vectors of `width` numbers; frozen=false; crops of `side`; and of parts.py."""
    own: dict[str, str | int | bool] = dict(text="voc.npz", width=512, frozen=True, side=224)
    given = common.parse_arguments(arguments, first="stage", **own, **parts.ARGUMENTS)
    name = "cel_voc_animals" + ("" if given.frozen else "_moving")
    config = parts.experiment(name, given.text, given.width)
    config.total_steps = 1500
    base, novel, rare = voc_animals.BASE, voc_animals.NOVEL, voc_animals.RARE
    config.vocabulary.update(classes=("background", *base, *novel, *rare), base=base, novel=novel)
    config.vocabulary.update(background="background", ignore_in_eval=rare)
    common.use_dinov2(config, "S")
    config.optimizer.update(common.from_scratch_optimizer(learning_rate=1e-3))
    if given.frozen:
        config.optimizer.frozen = "^backbone/"
    else:
        config.optimizer.backbone_rate = 0.1
    # Masks at half a patch, 7 pixels.
    config.method.decoder.update(queries=20, layers=3, width=128, num_heads=4, mlp_dim=512, mask_width=128)
    config.method.decoder.masks_per_patch = 2
    config.method.mask.points = 512
    classes = ("background", *base, *novel)
    source = common.source(folder="voc12_animals", split="train")
    sizes = dict(batch_size=8, scale=(4 * given.side, given.side), ratio_range=(1.0, 1.75), crop_size=given.side)
    parts.photos(config, given, novel, source=source, classes=classes, **sizes, downsample_rate=4, max_labels=8)
    source, window = common.source(folder="voc12_animals", split="val"), dict(window=given.side, stride=given.side // 2)
    known = parts.known(given, novel, classes)
    config.evals.val.update(source=source, classes=known, scale=(4 * given.side, given.side), **window, every=500)
    config.checkpoint.every = 500
    return config
