"""Backbones of DINOv2, timm and Hugging Face: the tokens are those that their own implementations compute."""

import dataclasses
import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from PIL import Image

from larvseg_jax.errors import UserError
from larvseg_jax.models.vit import VisionTransformer
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.weights.pretrained import load_pretrained
from tests.weights.recordings import FOLDER, NAMES, recording

OTHER_KIND = {"hf": ".safetensors", "hf5": ".pth", "timm": ".pth", "facebook": ".safetensors"}


def parameters(vit):
    """Fresh ones of a backbone, as a model has them."""
    images = jnp.zeros((1, 4, 4, 3))
    shapes = jax.eval_shape(VisionTransformer(vit).init, jax.random.key(0), images)["params"]
    return {"backbone": jax.tree.map(lambda x: jnp.zeros(x.shape), shapes)}


def load(path, vit):
    params, report = load_pretrained(path, parameters(vit), vit, ())
    return params["backbone"], report


@functools.cache
def compiled(vit):
    """(parameters, pictures) -> all that leaves the final norm, registers too; and what the network says of it."""

    def run(params, images):
        model, keep = VisionTransformer(vit), lambda module, method: module.name == "Transformer"
        tokens, kept = model.apply({"params": params}, images, capture_intermediates=keep)
        return kept["intermediates"]["Transformer"]["__call__"][0], tokens

    return jax.jit(run)


def all_tokens(vit, params, images):
    with jax.default_matmul_precision("highest"):
        return compiled(vit)(params, jnp.asarray(images))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["npz", "other"])
def test_tokens_are_those_of_the_other_implementation(name, kind, tmp_path):
    recorded = recording(name)
    suffix = ".npz" if kind == "npz" else OTHER_KIND[name.partition("_")[0]]
    path = recorded.write(tmp_path / f"file{suffix}")
    vit = ViTConfig(**recorded.options)
    params, report = load(path, vit)
    assert (report.missing, report.resized, report.dtypes) == ((), "", ("float32",))
    assert len(report.loaded) == len(traverse_util.flatten_dict(params))
    for images, expected in recorded.cases.values() if kind == "npz" else [recorded.cases["stored"]]:
        found, tokens = all_tokens(vit, params, images)
        np.testing.assert_allclose(found, expected, atol=2e-5)
        leading = vit.class_token + vit.registers
        np.testing.assert_allclose(tokens.patches[0].reshape(-1, 12), expected[0, leading:], atol=2e-5)
        assert (tokens.cls is None) == (not vit.class_token)
        if vit.class_token:
            np.testing.assert_allclose(tokens.cls, expected[:, 0], atol=2e-5)


def test_a_file_that_torch_has_written(tmp_path):
    path = shutil.copy(FOLDER / "facebook_dinov2.pth", tmp_path / "dinov2_vitg14_pretrain.pth")
    recorded = recording("facebook_dinov2")
    vit = ViTConfig(**recorded.options)
    params, report = load(path, vit)
    assert report.extra == ("mask_token",)
    images, expected = recorded.cases["stored"]
    np.testing.assert_allclose(all_tokens(vit, params, images)[0], expected, atol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_options_to_set_are_told_by_the_file(name, tmp_path):
    """Every one that is not as the file has it, and no other; the tests above see what each does to the tokens."""
    recorded = recording(name)
    path = recorded.write(tmp_path / "file.npz")
    right = ViTConfig(**recorded.options)
    wrong = dict(width=16, depth=1, mlp_dim=40, patch_size=2, class_token=not right.class_token)
    wrong |= dict(registers=right.registers + 1, layer_scale=not right.layer_scale)
    wrong |= dict(mlp="gelu" if right.mlp == "swiglu" else "swiglu")
    for option, value in wrong.items():
        told = {f"--config.model.{option}={getattr(right, option)}"}
        # No file tells its heads: where the width is another one, they are one per 64 features.
        heads = {"num_heads": 4} if option == "width" else {}
        told |= {"--config.model.num_heads=1"} if heads else set()
        config = dataclasses.replace(right, **{option: value}, **heads)
        with pytest.raises(UserError) as caught:
            load(path, config)
        message = str(caught.value)
        assert {word.rstrip(";") for word in message.split() if word.startswith("--config")} == told
        assert "\n" not in message


EXTRA = {
    "hf_vit": ("classifier.bias", "classifier.weight"),
    "hf_dinov2": ("embeddings.mask_token",),
    "hf_dinov2_registers": ("embeddings.mask_token",),
    "timm_deit_distilled": ("head.bias", "head.weight", "head_dist.bias", "head_dist.weight"),
    "facebook_dinov2": ("mask_token",),
}


@pytest.mark.parametrize("name", EXTRA)
def test_what_is_no_backbone_is_left_out_and_told(name, tmp_path):
    recorded = recording(name)
    _, report = load(recorded.write(tmp_path / "file.safetensors"), ViTConfig(**recorded.options))
    assert report.extra == EXTRA[name]


def test_the_decoder_of_mae_is_left_out(tmp_path):
    recorded = recording("hf_mae")
    _, report = load(recorded.write(tmp_path / "file.npz"), ViTConfig(**recorded.options))
    assert set(report.extra) == {name for name in recorded.state if name.startswith("decoder.")}
    # In facebook's own files it stands beside the encoder, which has the names of timm.
    plain = recording("timm_vit")
    of_mae = ("mask_token", "decoder_pos_embed", "decoder_embed.weight", "decoder_blocks.0.attn.qkv.weight")
    plain.state.update(dict.fromkeys((*of_mae, "decoder_norm.bias", "decoder_pred.bias"), np.ones(3, np.float32)))
    _, report = load(plain.write(tmp_path / "mae.pth"), ViTConfig(**plain.options))
    assert set(of_mae) < set(report.extra)


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "module.backbone.", "dinov2."])
def test_names_may_stand_under_a_prefix(prefix, tmp_path):
    recorded = recording("hf_dinov2")
    vit = ViTConfig(**recorded.options)
    expected, _ = load(recorded.write(tmp_path / "plain.npz"), vit)
    under = dataclasses.replace(recorded, state={f"{prefix}{name}": value for name, value in recorded.state.items()})
    under.state["classifier.weight"] = np.ones((2, 24), np.float32)
    for suffix in (".npz", ".pth"):
        found, report = load(under.write(tmp_path / f"file{suffix}"), vit)
        assert "classifier.weight" in report.extra
        jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_position_embedding_of_another_grid_is_resized_as_the_option_says(tmp_path):
    recorded = recording("hf_dinov2_registers")
    path = recorded.write(tmp_path / "file.npz")
    at_loading = ViTConfig(**recorded.options | dict(image_size=24))
    params, report = load(path, at_loading)
    assert report.resized == "3x3 -> 6x6"
    found = params["Transformer"]["posembed_input"]["pos_embedding"][0]
    stored = recorded.state["embeddings.position_embeddings"][0]
    np.testing.assert_array_equal(found[0], stored[0])
    for feature in range(12):
        grid = Image.fromarray(stored[1:, feature].reshape(3, 3)).resize((6, 6), Image.Resampling.BICUBIC)
        np.testing.assert_allclose(found[1:, feature].reshape(6, 6), grid, atol=1e-5)


@pytest.mark.parametrize("name", ["hf_dinov2_registers", "timm_vit"])
def test_the_resizing_matters_at_another_size(name, tmp_path):
    recorded = recording(name)
    vit = ViTConfig(**recorded.options)
    params, _ = load(recorded.write(tmp_path / "file.npz"), vit)
    images, expected = recorded.cases["other"]
    found, _ = all_tokens(dataclasses.replace(vit, position_resize="bicubic"), params, images)
    assert np.abs(found - expected).max() > 0.01


def test_a_classifier_of_pooled_features_is_refused(tmp_path):
    recorded = recording("timm_vit")
    for kind in ("weight", "bias"):
        recorded.state[f"fc_norm.{kind}"] = recorded.state.pop(f"norm.{kind}")
    with pytest.raises(UserError, match=r"no final norm of its tokens, only one of their mean \(fc_norm\)"):
        load(recorded.write(tmp_path / "file.npz"), ViTConfig(**recorded.options))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("hf_dinov2", "normalised as those that the weights were trained with ('imagenet')"),
        ("hf_mae", "normalised as those that the weights were trained with ('imagenet')"),
        ("timm_deit_distilled", "normalised as those that the weights were trained with ('imagenet')"),
        ("timm_vit", "the file does not say how they were normalised, the model has 'imagenet' (docs/weights.md)"),
    ],
)
def test_the_normalisation_that_a_family_knows_is_told(name, told, tmp_path):
    recorded = recording(name)
    path, vit = recorded.write(tmp_path / "file.npz"), ViTConfig(**recorded.options)
    assert f"    pixels: {told}" in str(load(path, vit)[1]).splitlines()
    other = str(load(path, dataclasses.replace(vit, pixels="half"))[1])
    if name == "timm_vit":
        assert "pixels: the file does not say how they were normalised, the model has 'half'" in other
    else:
        assert "the weights were trained with 'imagenet', the model has 'half': --config.model.pixels=imagenet" in other


def damaged(name, change):
    recorded = recording("timm_dinov2_registers")
    recorded.state[name] = change(recorded.state[name])
    return recorded


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("patch_embed.proj.weight", lambda x: x[0], "shape \\(3, 4, 4\\), and not \\(width, 3, patch, patch\\)"),
        ("blocks.0.attn.qkv.weight", lambda x: x[1:], "blocks.0.attn.qkv.weight has shape \\(35, 12\\), which a ViT"),
        ("blocks.1.attn.proj.weight", lambda x: x.ravel(), "blocks.1.attn.proj.weight has shape \\(144,\\)"),
        ("pos_embed", lambda x: x[:, 1:], "wrong shape: .*pos_embedding \\(1, 8, 12\\) and not \\(1, 10, 12\\)"),
        ("reg_token", lambda x: x.ravel(), "registers \\(48,\\) and not \\(1, 4, 12\\)"),
        ("blocks.0.ls1.gamma", lambda x: x * np.nan, "no float32 numbers in .*encoderblock_0/attention_scale"),
    ],
)
def test_damage_is_one_line_that_names_the_array(name, change, message, tmp_path):
    recorded = damaged(name, change)
    path = recorded.write(tmp_path / "file.npz")
    with pytest.raises(UserError, match=message) as caught:
        load(path, ViTConfig(**recorded.options))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_two_names_of_one_array_are_refused(tmp_path):
    recorded = recording("timm_vit")
    recorded.state["layernorm.weight"] = recorded.state["norm.weight"] + 1
    with pytest.raises(UserError, match=r"encoder_norm/scale twice, under layernorm\.weight and another name"):
        load(recorded.write(tmp_path / "file.npz"), ViTConfig(**recorded.options))


def test_arrays_that_no_vit_has_are_told(tmp_path):
    """A ViT of CLIP as timm names it has one norm more."""
    recorded = recording("timm_vit")
    recorded.state["norm_pre.weight"] = np.ones(12, np.float32)
    said = r"does not fit the model: it holds weights as timm .*; unknown: backbone/norm_pre\.weight"
    with pytest.raises(UserError, match=said):
        load(recorded.write(tmp_path / "file.npz"), ViTConfig(**recorded.options))
