"""CLIP's files of three kinds hold one model; what they do not say is asked for; a plain ViT takes the image tower."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import save_file

from larvseg_jax.errors import UserError
from larvseg_jax.models.vit import VisionTransformer
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.weights.clip_files import read_clip
from larvseg_jax.weights.clip_model import clip_model
from larvseg_jax.weights.pretrained import check_pretrained, load_pretrained
from larvseg_jax.weights.torch_file import read_state_dict
from tests.weights.clip_writing import (
    hugging_face_arrays,
    module,
    openai_arrays,
    tensor,
    write_clip,
    write_hugging_face,
)
from tests.weights.pth_files import Raw, write_pth

SMALL = 60  # ids: the whole vocabulary is for what needs it
CLIP_OPTIONS = dict(layer_norm_epsilon=1e-5, norm_before=True, patch_bias=False, pixels="clip")
VIT = ViTConfig(16, 2, 2, 64, patch_size=8, image_size=32, mlp="quick_gelu", **CLIP_OPTIONS)


def arrays_in(path, found, model=VIT):
    return read_clip({name: lambda name=name: found[name] for name in found}, path, model)


def test_three_spellings_are_one_model(tmp_path):
    plain = openai_arrays(ids=SMALL)
    custom = {name if name.startswith(("visual", "logit")) else f"text.{name}": x for name, x in plain.items()}
    of_openai, of_open_clip, of_transformers = (
        arrays_in(tmp_path / "x", found).arrays for found in (plain, custom, hugging_face_arrays(plain))
    )
    assert of_openai.keys() == of_open_clip.keys() == of_transformers.keys()
    for name, value in of_openai.items():
        np.testing.assert_array_equal(value, of_open_clip[name])
        np.testing.assert_array_equal(value, of_transformers[name])
    value = of_openai["text/encoderblock_1/MultiHeadDotProductAttention_1/value/kernel"]
    np.testing.assert_array_equal(value[:, 0], plain["transformer.resblocks.1.attn.in_proj_weight"][16:].T)
    np.testing.assert_array_equal(of_openai["image_projection"], plain["visual.proj"])


@pytest.mark.parametrize(
    ("name", "spelling", "config", "activation"),
    [
        ("clip.safetensors", "openai", None, "gelu"),
        ("ViT-B-16-quickgelu.safetensors", "openai", None, "quick_gelu"),
        ("clip.safetensors", "openai", {"quick_gelu": True}, "quick_gelu"),
        ("clip.safetensors", "transformers", None, ""),
        ("clip-laion.safetensors", "transformers", None, "gelu"),
        ("clip.safetensors", "transformers", {"hidden_act": "gelu"}, "gelu"),
        ("clip-laion.safetensors", "transformers", {"hidden_act": "quick_gelu"}, "quick_gelu"),
        ("clip.safetensors", "transformers", {}, "quick_gelu"),  # what transformers takes then
    ],
)
def test_the_activation_is_told_by_the_file_its_config_or_its_name(tmp_path, name, spelling, config, activation):
    plain = openai_arrays(ids=SMALL)
    if config is not None and spelling == "openai":
        cfg = {"vision_cfg": {"width": 16, "head_width": 8}, "text_cfg": {"heads": 2}, **config}
        (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": cfg}))
    elif config is not None:
        cfg = {"model_type": "clip", "vision_config": config, "text_config": {"num_attention_heads": 2}}
        (tmp_path / "config.json").write_text(json.dumps(cfg))
    found = arrays_in(tmp_path / name, plain if spelling == "openai" else hugging_face_arrays(plain))
    assert found.activation == activation
    heads = found.arrays["text/encoderblock_0/MultiHeadDotProductAttention_1/query/bias"].shape[0]
    assert heads == (1 if config is None else 2)


def test_a_model_says_its_sizes(tmp_path):
    found = clip_model(write_hugging_face(tmp_path))
    assert ViTConfig(**found.model) == VIT
    assert found.method == {
        "name": "clip",
        "width": 12,
        "text": {"width": 8, "depth": 2, "num_heads": 1, "mlp_dim": 32},
        "tokenizer": {"kind": "clip", "context": 20},
    }
    save_file({"w": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    assert clip_model(tmp_path / "other.safetensors") is None


def without_text(folder):
    found = {name: x for name, x in openai_arrays(ids=SMALL).items() if name.startswith("visual")}
    save_file(found, folder / "x.safetensors")
    return folder / "x.safetensors", "is a part of a CLIP, without text/token_embedding"


def of_other_ids(folder):
    save_file(openai_arrays(ids=SMALL), folder / "x.safetensors")
    return folder / "x.safetensors", "is a CLIP of 60 ids, and the tokenizer has 49,408"


def silent(folder):
    return write_hugging_face(folder, hidden_act=None), "put the config.json beside it that it came with"


def misshapen(folder):
    found = openai_arrays(ids=SMALL) | {"visual.transformer.resblocks.0.attn.in_proj_bias": np.zeros(5, np.float32)}
    save_file(found, folder / "x.safetensors")
    return folder / "x.safetensors", r"in_proj_bias has shape \(5,\), which a CLIP with 1 and 1 heads has not"


def without_blocks(folder):
    found = {name: x for name, x in openai_arrays().items() if "resblocks" not in name}
    save_file(found, folder / "x.safetensors")
    return folder / "x.safetensors", "x.safetensors is damaged: its arrays have not the shapes of a CLIP"


def of_flat_positions(folder):
    save_file(openai_arrays() | {"positional_embedding": np.zeros(20, np.float32)}, folder / "x.safetensors")
    return folder / "x.safetensors", "x.safetensors is damaged: its arrays have not the shapes of a CLIP"


@pytest.mark.parametrize("write", [without_text, of_other_ids, silent, misshapen, without_blocks, of_flat_positions])
def test_what_is_no_whole_model_is_refused(tmp_path, write):
    path, message = write(tmp_path)
    with pytest.raises(UserError, match=message):
        clip_model(path)


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("visual.layer1.0.conv1.weight", "CLIPs with a ResNet"),
        ("vision_model.embeddings.patch_embedding.weight", "SigLIP"),
    ],
)
def test_files_that_are_not_read_are_told_by_their_names(tmp_path, name, owner):
    save_file({name: np.zeros((2, 3, 1, 1), np.float32)}, tmp_path / "x.safetensors")
    assert clip_model(tmp_path / "x.safetensors") is None
    with pytest.raises(UserError, match=f"x.safetensors holds weights as .*{owner}.* names? them"):
        load_pretrained(tmp_path / "x.safetensors", layout_of(VIT), VIT, ())


def layout_of(vit):
    shapes = jax.eval_shape(VisionTransformer(vit).init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    head = {"class_embeddings": jnp.zeros((3, 16))}
    return {"backbone": jax.tree.map(lambda x: jnp.zeros(x.shape), shapes), "head": head}


def test_a_plain_backbone_starts_from_the_image_tower(tmp_path):
    path, plain = tmp_path / "ViT-quickgelu.safetensors", openai_arrays(ids=SMALL)
    save_file({name: x.astype(np.float16) for name, x in plain.items()}, path)
    params, report = load_pretrained(path, layout_of(VIT), VIT, ("a", "b", "c"))
    flat = traverse_util.flatten_dict(params, sep="/")
    norm = plain["visual.ln_pre.weight"].astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(flat["backbone/Transformer/norm_before/scale"], norm)
    assert report.missing == ("head/class_embeddings",)
    assert {"text/token_embedding", "image_projection", "logit_scale"} <= {*report.extra}
    text = str(report)
    assert "activation: that of the weights ('quick_gelu')" in text
    assert "float16, converted to float32" in text
    assert "with a norm before the blocks" in text


def test_another_activation_or_backbone_is_told_with_its_options(tmp_path):
    path = write_clip(tmp_path / "clip-laion.safetensors")
    with pytest.raises(UserError, match=r"trained with gelu; set --config\.model\.mlp=gelu"):
        check_pretrained(path, layout_of(VIT), VIT, ())
    other = ViTConfig(16, 2, 2, 64, patch_size=8, image_size=32)
    with pytest.raises(UserError, match=r"--config\.model\.norm_before=True --config\.model\.patch_bias=False"):
        check_pretrained(path, layout_of(other), other, ())


def test_names_of_a_torchscript_archive_are_joined(tmp_path):
    root = module(
        visual=module(proj=tensor("0", np.zeros(2, np.float32)), training=True),
        logit_scale=tensor("1", np.zeros(2, np.float32)),
    )
    path = write_pth(tmp_path / "m.pt", root, {f"archive/data/{i}": np.float32([i, 2]).tobytes() for i in range(2)})
    found = {name: x.read().tolist() for name, x in read_state_dict(path).items()}
    assert found == {"visual.proj": [0, 2], "logit_scale": [1, 2]}


def test_a_module_in_two_places_is_refused(tmp_path):
    memoised = Raw(bytes(module(proj=tensor("0", np.zeros(2, np.float32)))) + b"q\x07")
    path = write_pth(tmp_path / "m.pt", module(a=memoised, b=Raw(b"h\x07")), {"archive/data/0": bytes(8)})
    with pytest.raises(UserError, match="the module '[ab]' is in two places"):
        read_state_dict(path)
