"""What the configs of CLIP share: the method, and the sizes of its published models."""

import ml_collections

from configs import common
from larvseg_jax import options
from larvseg_jax.methods import clip
from larvseg_jax.methods.clip.options import CaptionLoss

SIZES = {  # image tower, patch, pictures' side, common space, text tower's width and heads
    "B/32": ("B", 32, 224, 512, 512, 8),
    "B/16": ("B", 16, 224, 512, 512, 8),
    "L/14": ("L", 14, 224, 768, 768, 12),
    "L/14@336": ("L", 14, 336, 768, 768, 12),
}


def experiment(name: str) -> ml_collections.ConfigDict:
    """CLIP with the options of its backbone, but without sizes, streams and classes. No table of classes is split."""
    config = common.get_config()
    config.name = name
    with config.unlocked():
        del config["method"]
        config.method = options.defaults(clip.Config)  # methods/clip/options.py
    config.mesh.rules = ()
    config.model.update(drop_path=0.0, layer_norm_epsilon=1e-5, mlp="quick_gelu", pixels="clip")
    config.model.update(norm_before=True, patch_bias=False)
    return config


def use_size(config: ml_collections.ConfigDict, size: str) -> None:
    """Both towers of a published model, "B/16"; OpenAI's weights. LAION's have `model.mlp="gelu"`."""
    tower, patch, side, space, width, heads = SIZES[size]
    config.model.update(common.VIT_SIZES[tower], patch_size=patch, image_size=side)
    config.method.width = space
    config.method.text.update(width=width, depth=12, num_heads=heads, mlp_dim=4 * width)


def captions(**changes) -> ml_collections.ConfigDict:
    """A stream of photos with captions: weight * L_contrastive."""
    return common.caption_stream(CaptionLoss, **changes)
