"""CEL with an open vocabulary: COCO-Stuff's masks of 156 classes, and nouns of COCO's captions as labels. Not yet run.

    larvseg text_vectors @names.txt --weights=clip-vit-b16.safetensors --templates=imagenet_80 --out=nouns.npz
    python train.py --config=configs/cel/ovs.py:stage=pretrain
    python train.py --config=configs/cel/ovs.py:nouns=nouns.txt,tags=nouns.json   with --config.pretrained, as others

In data_root: coco_stuff_171/1.0.0 and ade20k_150/1.0.0; `nouns` names a file with the 1,047 words of the training, 156
of them the masks' (one a line; without it these alone are learnt), `tags` the words of each photo. Text vectors are
needed of all of these and of the classes of the evaluations. How the paper takes nouns out of captions is not said.

Paper, mIoU in % (Table 3), all with CLIP's ensemble at the test (method.ensemble):

                        A-847    P-459    A-150    P-59    VOC-20
    CEL                   4.0      8.5     17.6    47.6      85.6
    with captions         4.6      9.6     19.4    48.0      85.9
"""

from pathlib import Path

import ml_collections

from configs import common
from configs.cel import parts
from larvseg_jax.vocabulary.class_lists import class_list
from larvseg_jax.vocabulary.splits import split_of

TARGETS = ("ade20k_150", "ade20k_full_847", "pascal_context_59", "pascal_context_459", "voc_20")


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """Arguments: text=FILE of vectors of 512 numbers; nouns=FILE; PAPER_ARGUMENTS of configs/cel/parts.py."""
    given = common.parse_arguments(
        arguments, first="stage", text="nouns.npz", nouns="", **parts.PAPER_ARGUMENTS | dict(labels="pseudo")
    )
    config = parts.experiment("cel_ovs", given.text, 512)
    parts.paper_sizes(config, given, side=640, steps=50_000)
    config.method.ensemble.seen = "none"
    seen = split_of("coco_stuff_156_15").seen
    words = Path(given.nouns).read_text().split("\n") if given.nouns else []
    nouns = tuple(word for word in dict.fromkeys(filter(None, words)) if word not in seen)
    targets = [name for key in TARGETS for name in class_list(key).ids]
    classes = tuple(dict.fromkeys([*seen, *nouns, *targets]))
    config.vocabulary.update(classes=classes, base=seen, novel=tuple(name for name in classes if name not in seen))
    parts.photos(
        config,
        given,
        nouns,
        source=common.source(tfds="coco_stuff_171/1.0.0", split="train"),
        classes=(*seen, *nouns),
        **parts.crops(640),
        max_labels=48,
    )
    config.streams.photos.drop = 0.25 if given.stage == "cel" else 0.0
    source = common.source(tfds="ade20k_150/1.0.0", split="val")
    config.evals = dict(a150=parts.evaluation(640, source=source, classes=class_list("ade20k_150").ids))
    return config
