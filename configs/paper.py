"""What the paper's experiments have in common (Yu et al., PRCV 2024, section 4; the authors' released configs).

ViT-B/16 from AugReg weights, 320,000 steps of 16 pictures, SGD 0.001 -> 0.00001, sliding window 512/512. Weights
and thresholds of a row are those of its released config; the argument `paper` takes the values that the paper
prints instead: every loss with weight 1, lambda_cls = lambda_aux = 0.1, K = 20.
`Original:` 8 GPUs with 2 pictures each, one data set per GPU, gradients averaged: hence the streams' weights.
"""

from typing import Any

import ml_collections

from configs import common

AUGREG_B16 = "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.01-res_384.npz"
"""ImageNet-21K weights fine-tuned on ImageNet-1k at 384 pixels, as the authors took: see docs/weights.md."""

SPLITS = ("processed", "split")
"""Both definitions of base and novel in ADE20K: the released training, and the paper's printed columns."""

METHOD: dict[str, Any] = dict(
    ca="on",  # CA-Classifier: on, off (= baseline); with ImageNet pictures also: ade, imagenet (on that stream only)
    variant="cross_image",  # where the attention comes from, Table 5: cross_image, region (7a), own_bank (7b)
    bank=20,  # M, Table 6 left
    topk=0,  # K, Table 6 right; 0 = the row's: 20, with I124 40 as released
    sample=0,  # classes that take part in a step; 0 = all. Original: 100 in the A847 and 21K runs with CA-Classifier
    share="title",  # rows shared by title, synset, or none
    duplicates="merged",  # COCO-Stuff's equal columns: merged, or separate as released
    paper=False,
)
"""Arguments of the tagged configs and their defaults."""


def experiment(name: str, lists: tuple[str, ...], evaluate: str) -> ml_collections.ConfigDict:
    """Backbone, schedule and evaluation of all rows; the streams are added by each config."""
    config = common.get_config()
    config.name = name
    config.pretrained = AUGREG_B16
    config.class_lists.lists = lists
    config.evals.val.source = common.source(tfds=f"{evaluate}/1.0.0", split="val")
    config.evals.val.class_list = evaluate
    if evaluate.startswith("ade20k"):
        config.evals.val.base_novel = SPLITS
    return config


def masks(key: str, **changes) -> ml_collections.ConfigDict:
    """Photos of a data set with their masks."""
    return common.mask_stream(source=common.source(tfds=f"{key}/1.0.0"), class_list=key, **changes)


def tags_of_crops(key: str, **changes) -> ml_collections.ConfigDict:
    """Photos of a data set whose masks only say which classes are in the augmented crop (WA150, WA847)."""
    source = common.source(tfds=f"{key}/1.0.0")
    return common.tag_stream(source=source, class_list=key, **{"max_labels": 96, **changes})


def imagenet(key: str, **changes) -> ml_collections.ConfigDict:
    """ImageNet pictures with their one label: long side about 320 pixels."""
    return common.tag_stream(
        source=common.source(tfds=f"{key}/1.0.0"),
        class_list=key,
        tags_from="image",
        max_labels=1,
        **dict(scale=(320, 320), crop_size=320, category_ratio=1.0),
        **changes,
    )


def apply(config: ml_collections.ConfigDict, args) -> ml_collections.ConfigDict:
    """The arguments of METHOD on a config whose streams are set."""
    streams = {"ade": config.streams.get("ade"), "imagenet": config.streams.get("imagenet")}
    tagged = {name: stream for name, stream in streams.items() if stream}
    choices = ("on", "off", *(tagged if len(tagged) > 1 else ()))
    if args.ca not in choices:
        raise ValueError(f"config argument ca={args.ca}: use {' or '.join(choices)}")
    for name, stream in tagged.items():
        if args.ca not in ("on", name):
            stream.lambda_aux = 0.0
    for stream in config.streams.values():
        stream.sample_classes = args.sample
        if args.paper:
            stream.weight = 1.0
            if stream.kind == "tags":
                stream.lambda_cls = 0.1
                stream.lambda_aux = 0.1 if stream.lambda_aux else 0.0
    topk = args.topk or (20 if args.paper else config.method.ca_classifier.foreground_topk)
    config.method.ca_classifier.update(variant=args.variant, memory_bank_size=args.bank, foreground_topk=topk)
    config.class_lists.update(share=args.share, duplicates=args.duplicates)
    return config


def mined(config: ml_collections.ConfigDict) -> None:
    """Background thresholds of the released runs with ImageNet pictures; the others use the defaults."""
    config.method.ca_classifier.update(background_threshold=0.35, background_mse_threshold=2.0)
