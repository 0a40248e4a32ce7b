"""COCO-Stuff masks (C171) and all of ImageNet-21K: 21,841 synsets, one row each. The paper's largest vocabulary.

    python train.py --config=configs/c171_i21k.py                     all classes in every softmax, CA-Classifier on
    python train.py --config=configs/c171_i21k.py:ca=off              baseline
    python train.py --config=configs/c171_i21k.py:ca=off,sample=100   as released (there with 11,276 synsets)
    python train.py --config=configs/c171_i21k.py:share=title         synsets of one name share a row (20,165 rows)
    python train.py --config=configs/c171_i21k.py:imagenet_s           evaluates on ImageNet-S, too
    ... :paper    :share=none    :duplicates=separate

The paper shows pictures and gives no number. Here: not yet run. Evaluated on COCO-Stuff (`val`, which chooses the best
checkpoint) and, with `:imagenet_s`, on ImageNet-S, whose 919 synsets have masks, twice: `val_imagenet_s` lets these 919
compete and ignores pixels that show none of them ("other"); in `val_imagenet_s_open` all 21,841 synsets compete, and
whatever is none of the 919 is "other", in truth and prediction, as in the protocol of ImageNet-S: only there mistakes
around the object count. Both are looked at seldom, for they have 12,419 photos. How mIoU falls as
ever more classes compete:

    python evaluate.py --run=runs/c171_i21k --vocabulary_curve=runs/c171_i21k/vocabulary_curve.json

With --hierarchy either gives Open mIoU, too, in which a mistake counts the less, the more alike the two synsets are.

By default a COCO-Stuff class shares its row with the one synset whose first lemma it is, if there is just one.
`Original:` 11,276 synsets of more than 500 pictures, no CA-Classifier, 100 classes a step.
"""

import ml_collections

from configs import common, paper


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """The experiment that the head of this file describes."""
    args = common.parse_arguments(arguments, **(paper.METHOD | dict(share="synset", imagenet_s=False)))
    # The authors' union by name renames a few synsets, so it comes from their rule and not from the titles.
    merged = args.share == "title"
    lists = ("coco_stuff_171", "union_i21k_c171_derived:imagenet_21k" if merged else "imagenet_21k")
    config = paper.experiment(common.run_name("c171_i21k", arguments), lists, "coco_stuff_171")
    config.total_steps = 1_280_000
    config.streams.c171 = paper.masks("coco_stuff_171", batch_size=8, weight=1 / 2)
    config.streams.imagenet = paper.imagenet("imagenet_21k", batch_size=8, weight=1 / 2, lambda_cls=0.2, lambda_aux=0.1)
    config.method.ca_classifier.bank_dtype = "float16"  # 0.7 GB instead of 1.35; class means are summed in float32
    config.checkpoint.every = config.evals.val.every = 16_000
    if args.imagenet_s:
        photos = dict(source=common.source(tfds="imagenet_s_919/1.0.0", split="val"), class_list="imagenet_s_919")
        config.evals.val_imagenet_s = common.evaluation(**photos, every=160_000)
        config.evals.val_imagenet_s_open = common.evaluation(**photos, every=640_000, rivals="imagenet_21k")
    paper.mined(config)
    return paper.apply(config, args)
