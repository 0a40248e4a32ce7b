"""Classes of pixels out of CLIP without training (MaskCLIP, Zhou et al., ECCV 2022): its three benchmarks.

    python evaluate.py --run=ViT-B-16.pt --config=configs/clip/dense.py:voc_20 --data_root=DIR
    ... --config=configs/clip/dense.py:pascal_context_59
    ... --config=configs/clip/dense.py:coco_stuff_171
    ... --config=configs/clip/dense.py:voc_20,features=value_block   MaskCLIP's code; its paper's equation is `value`
    ... --config=configs/clip/dense.py:voc_20,size=L/14              another of OpenAI's models

The data sets are prepared as docs/data.md says. `--run` is a CLIP's file (docs/clip.md), whose sizes count; the stream
of captions is what a training with this config would learn from.

mIoU of VOC-20, Context-59 and COCO-Stuff-171 in MaskCLIP's README: 49.5, 21.7, 12.5 with ViT-B/16. Here: not yet run.
`Original:` whole pictures; ImageNet's mean and std, GELU and another epsilon, which OpenAI's weights were not trained
with (--config.method.original_quirks=True: as it does); class names as CLIP's authors rewrote them, here those of the
data sets ("tvmonitor", "wall-concrete").
"""

import ml_collections

from configs import clip, common
from larvseg_jax.vocabulary.class_lists import class_list

SHORT_SIDE = {"voc_20": 512, "pascal_context_59": 520, "coco_stuff_171": 512}


def get_config(arguments: str = "voc_20") -> ml_collections.ConfigDict:
    """The data set, then size=B/16, features=value|value_block|tokens, templates=maskclip_85|..."""
    args = common.parse_arguments(
        arguments, first="data", data="voc_20", size="B/16", features="value", templates="maskclip_85"
    )
    config = clip.experiment(common.run_name("clip_dense", arguments.replace("/", "")))
    clip.use_size(config, args.size)
    config.method.update(features=args.features, templates=args.templates)
    config.vocabulary.classes = class_list(args.data).ids
    config.streams.captions = clip.captions(source=common.source(folder="captions"), batch_size=256)
    short = SHORT_SIDE[args.data]
    config.evals.val.update(
        source=common.source(tfds=f"{args.data}/1.0.0", split="val"),
        scale=(2048, short),
        window=short - short % 16,
        stride=256,
    )
    return config
