"""ViL-Seg in half an hour on a CPU: generated scenes whose captions name their classes (docs/captions.md).

    python -m data_pipelines.scenes --captions=data/scenes_captions
    python train.py --config=configs/vilseg/scenes.py
    ... --config=configs/vilseg/scenes.py:vision=false        without L_vision and its six small crops
    ... --config=configs/vilseg/scenes.py:clusters=10         C
    ... --config=configs/vilseg/scenes.py:paper               L_cluster of the whole batch, moving the encoder, too

Here L_cluster is of the patches of each picture and moves the clustering head alone: as the paper has it, clusters
become those of whole pictures (docs/results.md, 26). No mask is learnt from; those of 500 scenes measure what the
clusters and their names are worth.
"""

import ml_collections

from configs import common
from configs.vilseg import parts
from data_pipelines import scenes
from data_pipelines.scenes.captions import WORDS


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """Arguments: vision=false; clusters=C; paper."""
    given = common.parse_arguments(arguments, vision=True, clusters=20, paper=False)
    config = parts.experiment(common.run_name("vilseg_scenes", arguments))
    config.data_root = "data"
    config.total_steps = 2000
    config.vocabulary = dict(
        classes=scenes.CLASSES, base=scenes.BASE, novel=scenes.NOVEL, background="", ignore_in_eval=()
    )
    common.use_small_vit(config, image_size=64)
    config.method.width = 64
    config.method.tokenizer.update(kind="words", words=WORDS, context=24)
    config.method.text.update(width=64, depth=2, num_heads=2, mlp_dim=256)
    config.method.vision.update(weight=float(given.vision), dim=256)
    config.method.cross.symmetric = True  # a small batch
    config.method.cluster.update(
        num=given.clusters, over="batch" if given.paper else "picture", stop_gradient=not given.paper
    )
    # The classes of the scenes are told by their colours: these stay, but for those of L_cluster.
    parts.captions(
        config,
        common.source(folder="scenes_captions", split="train"),
        **dict(batch_size=32, crop_size=64, scale=(0.6, 1.0), local_size=32, local_scale=(0.1, 0.5)),
        **dict(jitter=0.0, grey=0.0, blur=0.0),
    )
    config.optimizer.update(learning_rate=1e-3, warmup_steps=100)
    source = common.source(folder="scenes_captions", split="val")
    config.evals.val.update(source=source, scale=(64, 64), window=64, stride=64, every=500)
    config.checkpoint.every = 500
    return config
