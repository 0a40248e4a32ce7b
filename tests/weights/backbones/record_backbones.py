"""Records tiny backbones of other implementations: what their files hold, and what they compute from a picture.

Run in a throw-away environment, never by the tests: Python 3.11, torch 2.13.0 (CPU), transformers 5.24.0, timm 1.0.31
with torchvision 0.29.1, dinov2 0.0.1.dev2 (facebook's own code, without registers); all but transformers by
`pip install --no-deps`. Then `python tests/weights/backbones/record_backbones.py` writes the files beside it.

A recording NAME.npz has: `state/...`, the arrays under the names of that implementation's files; `images` at the
stored size and `images_other` at another one, (1, height, width, 3), normalised; `tokens` and `tokens_other`, all
tokens after the final norm (class token, registers, patches row by row); `about`, a JSON with who computed it and the
options of `model`.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import timm
import torch
import transformers
from dinov2.models.vision_transformer import DinoVisionTransformer
from safetensors.torch import load_file
from timm.layers import SwiGLUPacked
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer

HERE = Path(__file__).parent
SIZES = dict(hidden_size=12, num_hidden_layers=2, num_attention_heads=3, image_size=12, patch_size=4)
OPTIONS = dict(width=12, depth=2, num_heads=3, mlp_dim=24, patch_size=4, image_size=12)
TIMM = dict(embed_dim=12, depth=2, num_heads=3, mlp_ratio=2, img_size=12, patch_size=4, num_classes=3)
SWIGLU = dict(mlp="swiglu", mlp_dim=16)  # int(24 * 2 / 3), a multiple of 8


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    """Every parameter away from the zeros and ones that training starts from."""
    generator = torch.Generator().manual_seed(1)
    for name, value in model.named_parameters():
        near_one = "norm" in name and name.endswith("weight")
        value.data = 0.4 * torch.randn(value.shape, generator=generator) + float(near_one)
    return model.eval()


def record(name: str, model: torch.nn.Module, tokens, state: dict, options: dict, other: bool = True) -> None:
    """Runs `tokens`, which gives all of them for (1, 3, height, width), at both sizes and writes the file."""
    generator = torch.Generator().manual_seed(2)
    arrays = {f"state/{key}": value.numpy() for key, value in state.items()}
    for suffix, size in {"": (12, 12), "_other": (20, 24)}.items():
        if other or not suffix:
            images = torch.randn((1, 3, *size), generator=generator)
            with torch.no_grad():
                arrays[f"tokens{suffix}"] = tokens(images).numpy()
            arrays[f"images{suffix}"] = images.permute(0, 2, 3, 1).contiguous().numpy()
    by = f"{type(model).__name__} of {type(model).__module__.partition('.')[0]}"
    versions = {package.__name__: package.__version__ for package in (torch, transformers, timm)}
    about = dict(by=by, options=OPTIONS | options, **versions)
    np.savez(HERE / f"{name}.npz", about=np.array(json.dumps(about)), **arrays)


def saved(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The arrays under the names that transformers writes: the older ones."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return load_file(f"{folder}/model.safetensors")


def hugging_face() -> None:
    t = transformers

    def of(base):
        return lambda images: base(images, **extra).last_hidden_state

    dinov2 = dict(layer_norm_epsilon=1e-6, layer_scale=True)
    extra: dict = {}
    model = randomised(t.Dinov2Model(t.Dinov2Config(**SIZES, mlp_ratio=2)))
    record("hf_dinov2", model, of(model), saved(model), dinov2)
    dinov2 |= dict(registers=4, position_resize="antialiased", **SWIGLU)
    config = t.Dinov2WithRegistersConfig(**SIZES, mlp_ratio=2, use_swiglu_ffn=True)
    model = randomised(t.Dinov2WithRegistersModel(config))
    record("hf_dinov2_registers", model, of(model), saved(model), dinov2)
    record("hf5_dinov2_registers", model, of(model), model.state_dict(), dinov2)

    extra = dict(interpolate_pos_encoding=True)
    plain = dict(layer_norm_epsilon=1e-12)
    sizes = SIZES | dict(intermediate_size=24)
    model = randomised(t.ViTForImageClassification(t.ViTConfig(**sizes)))
    record("hf_vit", model, of(model.vit), saved(model), plain)
    record("hf5_vit", model, of(model.vit), model.state_dict(), plain)
    model = randomised(t.DeiTForImageClassificationWithTeacher(t.DeiTConfig(**sizes)))
    record("hf_deit_distilled", model, of(model.deit), saved(model), plain | dict(registers=1))
    decoder = dict(decoder_hidden_size=8, decoder_num_hidden_layers=1, decoder_num_attention_heads=2)
    config = t.ViTMAEConfig(**sizes, **decoder, decoder_intermediate_size=8, mask_ratio=0.0)
    model = randomised(t.ViTMAEForPreTraining(config))

    def unmasked(images):
        patches = images.shape[2] * images.shape[3] // 16
        return model.vit(images, noise=torch.arange(patches)[None] / patches, **extra).last_hidden_state

    record("hf_mae", model, unmasked, saved(model), plain)


def timm_and_facebook() -> None:
    """Facebook's own resizing of the position embedding (a scale that is 0.1 patches too large) is not recorded."""
    dynamic = dict(dynamic_img_size=True)
    resized = dict(position_resize="antialiased")
    model = randomised(VisionTransformer(**TIMM, **dynamic))
    record("timm_vit", model, model.forward_features, model.state_dict(), resized)
    model = randomised(VisionTransformerDistilled(**TIMM, **dynamic))
    record("timm_deit_distilled", model, model.forward_features, model.state_dict(), resized | dict(registers=1))
    pooled = dict(class_token=False, global_pool="avg", fc_norm=False, init_values=1e-5)
    model = randomised(VisionTransformer(**TIMM, **pooled, **dynamic))
    options = resized | dict(class_token=False, layer_scale=True)
    record("timm_no_class_token", model, model.forward_features, model.state_dict(), options)
    giant = TIMM | dict(mlp_ratio=32 / 12, mlp_layer=SwiGLUPacked, act_layer=torch.nn.SiLU, init_values=1e-5)
    model = randomised(VisionTransformer(**giant, reg_tokens=4, no_embed_class=True, **dynamic))
    options = resized | dict(registers=4, layer_scale=True, **SWIGLU)
    record("timm_dinov2_registers", model, model.forward_features, model.state_dict(), options)

    sizes = dict(embed_dim=12, depth=2, num_heads=3, mlp_ratio=2, img_size=12, patch_size=4, init_values=1e-5)
    model = randomised(DinoVisionTransformer(**sizes, ffn_layer="swiglu", block_chunks=0))

    def tokens(images):
        found = model.forward_features(images)
        return torch.cat([found["x_norm_clstoken"][:, None], found["x_norm_patchtokens"]], 1)

    options = dict(layer_scale=True, **SWIGLU)
    record("facebook_dinov2", model, tokens, model.state_dict(), options, other=False)
    torch.save(model.state_dict(), HERE / "facebook_dinov2.pth")


if __name__ == "__main__":
    hugging_face()
    timm_and_facebook()
