"""LSeg as in LarvSeg's Tables 1 and 3: COCO-Stuff's masks, classes by frozen text vectors of their names.

    larvseg text_vectors coco_stuff_171 --weights clip-vit-b32.safetensors --out coco_stuff_171.npz
    python train.py --config=configs/lseg/c171.py

Paper (all / base / novel classes; its text vectors are CLIP ViT-B/32's): A150 19.3 / 40.2 / 6.8; A847 3.9 / 25.8 / 1.2.
Here: not yet run.
"""

import ml_collections

from configs import c171, common
from larvseg_jax.methods import lseg
from larvseg_jax.text.vectors import TextClasses


def get_config(vectors: str = "coco_stuff_171.npz") -> ml_collections.ConfigDict:
    """Argument: the file of text vectors, 512 numbers each."""
    config = c171.get_config()
    common.use_method(config, lseg.Config(TextClasses(vectors, 512)))
    config.name = "lseg_c171"
    return config
