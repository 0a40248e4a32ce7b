"""The whole method in minutes on two CPU cores, on generated scenes (data_pipelines/scenes/).

    make quickstart          or          python train.py --config=configs/quickstart.py
    ... --config=configs/quickstart.py:baseline         without the CA-Classifier
    ... --config=configs/quickstart.py:objects=false    without the pictures of single objects
    ... --config=configs/quickstart.py:grounds=one      the hard setting: each novel class on one ground only
                                                        (python -m data_pipelines.scenes --grounds=one --data_root=data)

Three streams as in the paper's largest setting: masks of base classes (COCO-Stuff's part), tagged scenes
(ADE20K's) and pictures of single objects (ImageNet's), 3:3:2. Measured: docs/results.md.
"""

import ml_collections

from configs import common
from data_pipelines import scenes
from data_pipelines.scenes import pictures
from data_pipelines.scenes.classes import HABITATS


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """Arguments: larvseg (default) or baseline (no attention); objects=false; grounds=several (default) or one."""
    given = common.parse_arguments(arguments, first="method", method="larvseg", objects=True, grounds="several")
    if given.grounds not in HABITATS:
        raise ValueError(f"config argument grounds={given.grounds}: use {' or '.join(HABITATS)}")
    config = common.get_config()
    config.name = "quickstart" if given.method == "larvseg" else f"quickstart_{given.method}"
    config.name += "_one_ground" if given.grounds == "one" else ""
    config.data_root = "data"

    def part(name: str, split: str = "train") -> ml_collections.ConfigDict:
        folder = pictures.config_of(name, given.grounds)
        return common.source(tfds=f"scenes/{folder}/{pictures.VERSION}", split=split)

    config.total_steps = 1200
    config.vocabulary = dict(
        classes=scenes.CLASSES, base=scenes.BASE, novel=scenes.NOVEL, background="", ignore_in_eval=()
    )
    common.use_small_vit(config, image_size=64)
    scene = dict(batch_size=12, scale=(64, 64), ratio_range=(1.0, 1.5), crop_size=64)
    config.streams.masks = common.mask_stream(**scene, source=part("train_masks"), classes=scenes.BASE)
    # From scratch (common.small_photos); L_aux more than L_cls, because its attention lies on the objects.
    weights = dict(lambda_cls=0.3, lambda_aux=1.0)
    config.streams.tags = common.tag_stream(**scene, **weights, source=part("train_tags"), tags_from="image")
    config.streams.objects = common.tag_stream(
        **scene | dict(batch_size=8, scale=(48, 48), crop_size=48),
        **weights,
        source=part("train_objects"),
        tags_from="image",
        max_labels=1,
        weight=0.25,
    )
    if not given.objects:
        config.name += "_no_objects"
        del config.streams.objects
    config.method.ca_classifier.foreground_topk = 8  # of 64 patches: no more than an object fills
    common.set_method(config, given.method)
    config.optimizer.update(common.from_scratch_optimizer(learning_rate=2e-3))
    config.evals.val.update(source=part("val", split="val"), scale=(64, 64), window=64, stride=64, every=400)
    config.checkpoint.every = 200
    return config
