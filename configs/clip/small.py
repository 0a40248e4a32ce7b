"""CLIP from scratch on a few thousand captions: the smallest training that shows all its parts, on a CPU.

    python train.py --config=configs/clip/small.py --config.data_root=DIR

DIR has the folder `captions` with images/ and captions.json (docs/captions.md), and `voc12_animals`, on whose masks of
ten classes patches are compared with words (configs/voc_animals.py has the classes). The tokens are CLIP's byte pairs,
of which most never occur. Here: not yet run. For more than a test of the parts it takes millions of captions.
"""

import ml_collections

from configs import clip, common
from configs.voc_animals import BASE


def get_config() -> ml_collections.ConfigDict:
    """The experiment that the head of this file describes."""
    config = clip.experiment("clip_small")
    config.total_steps = 5000
    config.model.update(width=96, depth=4, num_heads=3, mlp_dim=384, patch_size=8, image_size=64)
    config.method.update(width=96, templates="vilseg_paper", features="tokens")
    config.method.text.update(width=96, depth=4, num_heads=3, mlp_dim=384)
    config.method.tokenizer.context = 32
    config.vocabulary.update(classes=BASE, novel=BASE)
    config.streams.captions = clip.captions(
        source=common.source(folder="captions"),
        batch_size=64,
        crop_size=64,
        text=dict(kind="clip", words=(), context=32),
    )
    config.optimizer.update(common.from_scratch_optimizer(learning_rate=1e-3))
    config.evals.val.update(
        source=common.source(folder="voc12_animals", split="val"), scale=(320, 80), window=64, stride=32, every=1000
    )
    config.checkpoint.every = 1000
    return config
