"""Whose weights a file holds, told by the names of its arrays: for the message where it is not one that is read."""

from __future__ import annotations

import re
from collections.abc import Iterable

REMEDY = "give an AugReg .npz file of the same size instead, or another of those in docs/weights.md"

_PREFIX = r"(?:module\.|model\.|encoder\.|backbone\.|vit\.|deit\.|beit\.|dinov2\.|visual\.|params/)*"
_FAMILIES = (
    # First those whose names hold the marks of later ones, too.
    ("big_vision", r"params/(?:pos_embedding|embedding/|Transformer/|MAPHead)|.*/?MAPHead_0/"),
    ("CLIPs with a ResNet", r"(?:module\.)?visual\.(?:layer[1-4]|attnpool)\."),
    ("CLIP or OpenCLIP", r"(?:module\.)?visual\.(?:conv1|class_embedding|positional_embedding|transformer\.resblocks)"),
    ("Hugging Face's SigLIP, or a part of its CLIP,", r"(?:vision_model|text_model)\."),
    ("Hugging Face Transformers", r"(?:\w+\.)?(?:embeddings\.(?:cls_token|patch_embeddings)|encoder\.layer\.\d+\.)"),
    ("torchvision", r"(?:module\.)?(?:encoder\.layers\.encoder_layer_\d+|conv_proj\.|encoder\.pos_embedding)"),
    ("mmpretrain or mmsegmentation", r"backbone\.(?:patch_embed\.projection|layers\.\d+\.(?:ln1|attn\.qkv|ffn))"),
    ("timm (as DeiT, MAE and DINO files)", _PREFIX + r"(?:blocks\.\d+\.(?:norm1|attn|mlp)|patch_embed\.proj\.)"),
)


def whose(names: Iterable[str]) -> str:
    """'weights as timm names them ("blocks.0.attn.qkv.weight")'; "" if the names are none that are known."""
    names = sorted(names)
    for family, pattern in _FAMILIES:
        known = next((name for name in names if re.match(pattern, name)), None)
        if known is not None:
            return f'weights as {family} names them ("{known}")'
    return ""
