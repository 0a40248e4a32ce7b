"""vit_* and vit_npz_*: the backbone, from recorded parameters and from AugReg files."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from larvseg_jax.models.blocks import EncoderBlock
from larvseg_jax.models.position import resize_position_embedding
from larvseg_jax.models.vit import VisionTransformer
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.weights.pretrained import POSITION_EMBEDDING
from tests.parity.golden import Golden, channels_first, channels_last
from tests.parity.table import Report
from tests.weights.augreg_files import load_backbone


@dataclasses.dataclass(frozen=True)
class _Config(ViTConfig):
    """Ours with any stored grid; `image_size` alone can only say square ones."""

    grid: tuple[int, int] = (0, 0)

    @property
    def stored_grid(self) -> tuple[int, int]:
        return self.grid


def check_vit(report: Report, golden: Golden) -> None:
    """Features of every block, and the gradients of their weighted sum."""
    params = _from_torch(golden)
    patch_grid = tuple(golden.meta["patch_grid"])
    model = VisionTransformer(_config(golden, _stored_grid(golden), params))
    image, cotangent = channels_last(golden["image"]), channels_last(golden["cotangent"])

    @jax.jit
    def forward(params, image):
        return model.apply(
            {"params": params},
            image,
            capture_intermediates=lambda module, _: isinstance(module, EncoderBlock),
        )

    @jax.jit
    @jax.grad
    def gradients(params, image):
        return jnp.sum(model.apply({"params": params}, image).patches * cotangent)

    out, captured = forward(params, image)
    report.array("features", channels_first(out.patches), golden["features"])
    blocks = captured["intermediates"]["Transformer"]
    for i in range(golden.meta["depth"] - 1):  # the last block is recorded after the final norm
        tokens = blocks[f"encoderblock_{i}"]["__call__"][0][:, 1:]
        ours = tokens.reshape(len(tokens), *patch_grid, -1)
        report.array("features of inner blocks", channels_first(ours), golden[f"layer{i}"])
    flat = traverse_util.flatten_dict(gradients(params, image), sep="/")
    used = resize_position_embedding(jnp.asarray(golden["param:pos_embed"]), _stored_grid(golden), patch_grid)
    report.array("pos_embed_used", used, golden["pos_embed_used"])
    report.gradient("grad_pos_embed", flat[POSITION_EMBEDDING], golden["grad_pos_embed"])
    report.gradient("grad_patch_bias", flat["embedding/bias"], golden["grad_patch_bias"])
    report.gradient("grad_cls_token", flat["cls"], golden["grad_cls_token"])


def check_vit_npz(report: Report, golden: Golden) -> None:
    """Features with the weights of an AugReg file, with resizing (twice) and without."""
    weights = golden.path.parent / golden.meta["weights"]
    with np.load(weights) as file:
        shapes = {name.removeprefix(golden.meta["key_prefix"]): file[name].shape for name in file.files}

    def run(grid: tuple[int, int], image: np.ndarray):
        model = VisionTransformer(_config(golden, grid, shapes))
        images = jnp.asarray(channels_last(image))
        fresh = jax.eval_shape(lambda: model.init(jax.random.key(0), images)["params"])
        params, _ = load_backbone(weights, fresh, model.config)
        tokens = jax.jit(lambda params, images: model.apply({"params": params}, images))(params, images)
        return traverse_util.flatten_dict(params, sep="/"), channels_first(tokens.patches)

    params, features = run(tuple(golden.meta["pos_grid"]), golden["image"])
    report.array("pos_embed_after_load", params[POSITION_EMBEDDING], golden["pos_embed_after_load"])
    report.array("features", features, golden["features"])
    _, native = run(tuple(golden.meta["file_grid"]), golden["image_native"])
    report.array("features_native", native, golden["features_native"])
    report.array("features_native_timm", native, golden["features_native_timm"])


def _config(golden: Golden, grid: tuple[int, int], sizes) -> _Config:
    """`sizes`: our parameters, or the shapes of a file by name."""
    meta = golden.meta
    name = "Transformer/encoderblock_0/MlpBlock_3/Dense_0/bias"
    flat = sizes if name in sizes else {k: v.shape for k, v in traverse_util.flatten_dict(sizes, sep="/").items()}
    return _Config(
        width=meta["embed"],
        depth=meta["depth"],
        num_heads=meta["heads"],
        mlp_dim=flat[name][0],
        patch_size=meta["patch"],
        image_size=0,
        layer_norm_epsilon=meta.get("ln_eps", ViTConfig.layer_norm_epsilon),
        grid=grid,
    )


def _stored_grid(golden: Golden) -> tuple[int, int]:
    """`Original:` an embedding of as many tokens in another shape is used as it is; ours is resized."""
    stored, patch = tuple(golden.meta["pos_grid"]), tuple(golden.meta["patch_grid"])
    return patch if np.prod(stored) == np.prod(patch) else stored


def _from_torch(golden: Golden) -> dict:
    """The recorded state dict as our parameter tree: linear weights are (out, in), qkv are stacked."""
    width, heads = golden.meta["embed"], golden.meta["heads"]
    state = {name.removeprefix("param:"): v for name, v in golden.arrays.items() if name.startswith("param:")}
    tree = {
        "cls": state["cls_token"],
        POSITION_EMBEDDING: state["pos_embed"],
        "embedding/kernel": state["patch_embed.projection.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.projection.bias"],
        "Transformer/encoder_norm/scale": state["ln1.weight"],
        "Transformer/encoder_norm/bias": state["ln1.bias"],
    }
    for i in range(golden.meta["depth"]):
        theirs, ours = f"layers.{i}.", f"Transformer/encoderblock_{i}/"
        for norm, name in (("LayerNorm_0", "ln1"), ("LayerNorm_2", "ln2")):
            tree[f"{ours}{norm}/scale"] = state[f"{theirs}{name}.weight"]
            tree[f"{ours}{norm}/bias"] = state[f"{theirs}{name}.bias"]
        attention = f"{ours}MultiHeadDotProductAttention_1/"
        stacked = state[f"{theirs}attn.attn.in_proj_weight"], state[f"{theirs}attn.attn.in_proj_bias"]
        for name, weight, bias in zip(("query", "key", "value"), *(np.split(x, 3) for x in stacked), strict=True):
            tree[f"{attention}{name}/kernel"] = weight.T.reshape(width, heads, -1)
            tree[f"{attention}{name}/bias"] = bias.reshape(heads, -1)
        tree[f"{attention}out/kernel"] = state[f"{theirs}attn.attn.out_proj.weight"].T.reshape(heads, -1, width)
        tree[f"{attention}out/bias"] = state[f"{theirs}attn.attn.out_proj.bias"]
        for dense, name in (("Dense_0", "0.0"), ("Dense_1", "1")):
            tree[f"{ours}MlpBlock_3/{dense}/kernel"] = state[f"{theirs}ffn.layers.{name}.weight"].T
            tree[f"{ours}MlpBlock_3/{dense}/bias"] = state[f"{theirs}ffn.layers.{name}.bias"]
    return traverse_util.unflatten_dict(tree, sep="/")
