"""LSeg on the animals of PASCAL VOC: masks of ten classes, dog, cow and sheep known by name alone.

    LARVSEG_DATA=<folder with voc12_animals> python train.py --config=configs/lseg/voc_animals.py:text=voc.npz,learn=0

The file of text vectors needs all classes of configs/voc_animals.py, the background too. Measured: docs/results.md.
"""

import ml_collections

from configs import common, voc_animals
from larvseg_jax.methods import lseg
from larvseg_jax.text.vectors import TextClasses


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """Arguments: text=FILE of text vectors of `width` numbers; learn=K for DINOv2's ViT-S/14 in crops of `side`."""
    given = common.parse_arguments(arguments, first="text", text="voc.npz", width=512, learn=-1, side=224)
    config = voc_animals.get_config(f"learn={given.learn},side={given.side}")
    with config.unlocked():
        del config.streams["tags"]
    common.use_method(config, lseg.Config(TextClasses(given.text, given.width)))
    config.streams.masks.weight = 1.0
    config.name = config.name.replace("larvseg", "lseg")
    return config
