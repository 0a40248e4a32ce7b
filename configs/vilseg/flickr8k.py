"""ViL-Seg on 7,091 photographs with five captions each, on a CPU: what it makes of little.

Measured on DINOv2 and from scratch: docs/results.md, 26.

    LARVSEG_DATA=<folder with flickr8k and voc12_animals> python train.py --config=configs/vilseg/flickr8k.py
    ... --config=configs/vilseg/flickr8k.py:vision=false      without L_vision and its six small crops
    ... --config=configs/vilseg/flickr8k.py:vision=false,dinov2   on DINOv2's ViT-S/14 as it is (config.pretrained)

Two folders are looked for in data_root: `flickr8k` (images/, captions.json, splits.json) and, to measure by masks,
`voc12_animals` (docs/data.md). CC12M has 1,700 times as many pairs: this shows that it runs, not what it can do.
"""

import ml_collections

from configs import common
from configs.vilseg import parts
from configs.voc_animals import BASE, NOVEL, RARE


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """Arguments: vision=false; dinov2, with crops of `side` pixels."""
    given = common.parse_arguments(arguments, vision=True, dinov2=False, side=168)
    config = parts.experiment(common.run_name("vilseg_flickr8k", arguments))
    config.total_steps = 5000
    config.vocabulary.update(classes=("background", *BASE, *NOVEL, *RARE), base=BASE, novel=NOVEL, ignore_in_eval=RARE)
    config.vocabulary.background = "background"
    side = given.side if given.dinov2 else 64
    if given.dinov2:
        common.use_dinov2(config, "S")
        config.optimizer.frozen = "^backbone/"
    else:
        common.use_small_vit(config, image_size=side)
    config.method.width = 96
    config.method.tokenizer.context = 32
    config.method.text.update(width=96, depth=3, num_heads=3, mlp_dim=384)
    config.method.vision.update(weight=float(given.vision), dim=512)
    config.method.cross.symmetric = True  # a small batch
    parts.captions(
        config,
        common.source(folder="flickr8k", split="train"),
        **dict(batch_size=64, crop_size=side, scale=(0.6, 1.0), local_size=side // 2, local_scale=(0.1, 0.5), grey=0.0),
    )
    config.optimizer.update(learning_rate=1e-3, warmup_steps=200)
    # Background is no word of captions: pixels of it do not count.
    config.evals.val.update(source=common.source(folder="voc12_animals", split="val"), classes=(*BASE, *NOVEL))
    config.evals.val.update(scale=(side, side), window=side, stride=side, every=1000)
    config.checkpoint.every = 1000
    return config
