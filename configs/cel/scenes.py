"""CEL on generated scenes, on a CPU: masks of the base classes, and labels of the novel ones, which are "unseen".

    python -m data_pipelines.scenes --captions=data/scenes_captions
    python train.py --config=configs/cel/scenes.py:stage=pretrain          paired, base classes alone (docs/cel.md)
    python train.py --config=configs/cel/scenes.py --config.pretrained=runs/cel_scenes_pretrain
    ... --config=configs/cel/scenes.py:labels=none                        no labels of novel classes (Table 5)
    ... --config=configs/cel/scenes.py:labels=unnamed                     nor their names among the classes
    ... --config=configs/cel/scenes.py:unmatched=background,rank=0         the first row of Table 6; its others:
    ... --config=configs/cel/scenes.py:rank=0

The class vectors are those of a text tower that has read the scenes' captions: text=scenes.npz of 64 numbers, made as
docs/cel.md says. Measured: docs/results.md, 28.
"""

import ml_collections

from configs import common
from configs.cel import parts
from data_pipelines import scenes


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """Arguments: text=FILE of vectors of `width` numbers; those of configs/cel/parts.py."""
    given = common.parse_arguments(arguments, first="stage", text="scenes.npz", width=64, **parts.ARGUMENTS)
    config = parts.experiment("cel_scenes", given.text, given.width)
    config.data_root = "data"
    config.total_steps = 1500
    config.vocabulary = dict(
        classes=scenes.CLASSES, base=scenes.BASE, novel=scenes.NOVEL, background="", ignore_in_eval=()
    )
    common.use_small_vit(config, image_size=64)
    # Masks at stride 4.
    config.method.decoder.update(queries=20, layers=3, width=96, num_heads=3, mlp_dim=384, mask_width=96)
    config.method.decoder.masks_per_patch = 2
    config.method.mask.points = 256
    parts.photos(
        config,
        given,
        scenes.NOVEL,
        source=common.source(folder="scenes_captions", split="train"),
        **dict(classes=scenes.CLASSES, batch_size=8, scale=(64, 64), ratio_range=(1.0, 1.5), crop_size=64),
        max_labels=8,
    )
    config.optimizer.update(common.from_scratch_optimizer(learning_rate=1e-3))
    source = common.source(folder="scenes_captions", split="val")
    config.evals.val.update(source=source, scale=(64, 64), window=64, stride=64, every=500)
    config.evals.val.classes = parts.known(given, scenes.NOVEL, scenes.CLASSES)
    config.checkpoint.every = 500
    return config
