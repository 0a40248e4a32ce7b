"""COCO-Stuff masks (C171) and all of ImageNet-21K: 21,841 synsets, one row each. The paper's largest vocabulary.

    python train.py --config=configs/c171_i21k.py                     all classes in every softmax, CA-Classifier on
    python train.py --config=configs/c171_i21k.py:ca=off              baseline
    python train.py --config=configs/c171_i21k.py:ca=off,sample=100   as released (there with 11,276 synsets)
    python train.py --config=configs/c171_i21k.py:share=title         synsets of one name share a row (20,165 rows)
    ... :paper    :share=none    :duplicates=separate

The paper shows pictures and gives no number. Here: not yet run. Evaluated on COCO-Stuff, the only masks there are.
By default a COCO-Stuff class shares its row with the one synset whose first lemma it is, if there is just one.
`Original:` 11,276 synsets of more than 500 pictures, no CA-Classifier, 100 classes a step.
"""

import ml_collections

from configs import common, paper


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    args = common.parse_arguments(arguments, **(paper.METHOD | dict(share="synset")))
    # The authors' union by name renames a few synsets, so it comes from their rule and not from the titles.
    merged = args.share == "title"
    lists = ("coco_stuff_171", "union_i21k_c171_derived:imagenet_21k" if merged else "imagenet_21k")
    config = paper.experiment(common.run_name("c171_i21k", arguments), lists, "coco_stuff_171")
    config.total_steps = 1_280_000
    config.streams.c171 = paper.masks("coco_stuff_171", batch_size=8, weight=1 / 2)
    config.streams.imagenet = paper.imagenet("imagenet_21k", batch_size=8, weight=1 / 2, lambda_cls=0.2, lambda_aux=0.1)
    config.method.ca_classifier.bank_dtype = "float16"  # 0.7 GB instead of 1.35; class means are summed in float32
    config.checkpoint.every = config.evals.val.every = 16_000
    paper.mined(config)
    return paper.apply(config, args)
