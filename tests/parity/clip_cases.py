"""clip_*, openai_archive_*, maskclip_*, tokenizer_*: CLIP's towers, files, dense features and tokens.

Tolerances are those of the files' own README: of the largest entry, gradients 1e-4, behind softmax(100 cos) 2e-4.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from larvseg_jax.methods.class_vectors import ensemble
from larvseg_jax.methods.contrastive import contrastive_loss
from larvseg_jax.models.blocks import EncoderBlock
from larvseg_jax.models.clip import Clip, contrastive_logits, normalised
from larvseg_jax.models.dense_clip import denoised, dense_tokens, probabilities_of, smoothed
from larvseg_jax.models.text import TextConfig, at_end
from larvseg_jax.models.vit import VisionTransformer
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.text.clip_tokenizer import ClipTokenizer
from larvseg_jax.weights.clip_files import read_clip, translated
from larvseg_jax.weights.torch_file import read_state_dict
from tests.parity.golden import Golden, channels_last
from tests.parity.table import Report

LOSS, GRADIENT, SOFTMAX = 1e-5, 1e-4, 2e-4


def check_clip(report: Report, golden: Golden) -> None:
    """Both towers and their features; where they are recorded, every state, the loss and its gradients."""
    model, params = model_of(golden), parameters(golden, golden.part("w/"))
    images, ids = jnp.asarray(channels_last(golden["in/pixel_values"])), jnp.asarray(golden["in/input_ids"])

    @functools.partial(jax.jit, static_argnames="clip")
    def forward(params, images, clip):
        keep = functools.partial(_keeps)
        (embedded, texts), seen = clip.apply({"params": params}, images, ids, capture_intermediates=keep)
        scale = clip.apply({"params": params}, method=Clip.scale)
        return embedded.cls, texts, contrastive_logits(embedded.cls, texts, scale), seen["intermediates"]

    features, texts, logits, seen = forward(params, images, model)
    report.array("image_features", features, golden["out/image_features"])
    report.array("text_features", texts, golden["out/text_features"])
    report.array("logits_per_image", logits, golden["out/logits_per_image"])
    if "out/loss" not in golden.arrays:
        return
    report.array("image_embeds", normalised(features), golden["out/image_embeds"])
    report.array("text_embeds", normalised(texts), golden["out/text_embeds"])
    _check_states(report, golden, params, ids, seen)

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def loss(params, images):
        embedded, texts = model.apply({"params": params}, images, ids)
        logits = contrastive_logits(embedded.cls, texts, model.apply({"params": params}, method=Clip.scale))
        return contrastive_loss(logits, jnp.ones(len(images), bool), symmetric=True)

    value, (to_params, to_images) = loss(params, images)
    report.loss("loss", value, golden["out/loss"], LOSS)
    report.array("grad_pixels", to_images, channels_last(golden["grad/pixel_values"]), GRADIENT)
    flat = _flat(to_params)
    for name, gradient in golden.part("grad/").items():
        if name != "pixel_values":
            ((ours, expected),) = translated(name, gradient, heads_of(golden)).items()
            report.array(f"grad_{ours}", flat[ours], expected, GRADIENT)


def _keeps(module, _method: str) -> bool:
    return isinstance(module, EncoderBlock) or module.name in ("norm_before", "final_norm")


def _check_states(report: Report, golden: Golden, params, ids, seen) -> None:
    vision, text = seen["backbone"]["Transformer"], seen["text"]
    depths = golden["cfg/vision"][1], golden["cfg/text"][1]
    report.array("vision_states", vision["norm_before"]["__call__"][0], golden["out/vision_state_0"])
    for i in range(depths[0]):
        found = vision[f"encoderblock_{i}"]["__call__"][0]
        report.array("vision_states", found, golden[f"out/vision_state_{i + 1}"])
    embedded = params["text"]["token_embedding"][ids] + params["text"]["positional_embedding"][None, : ids.shape[1]]
    report.array("text_states", embedded, golden["out/text_state_0"])
    for i in range(depths[1] - 1):  # the last block is recorded after the final norm
        report.array("text_states", text[f"encoderblock_{i}"]["__call__"][0], golden[f"out/text_state_{i + 1}"])
    last = text["final_norm"]["__call__"][0]
    report.array("text_last", last, golden["out/text_last"])
    report.array("text_pooled", at_end(last, ids), golden["out/text_pooled"])


def check_archive(report: Report, golden: Golden) -> None:
    """A TorchScript archive holds what the .npz of the same model does, its matrices rounded to half precision."""
    of = Golden.load(golden.path.with_name(f"{golden.path.stem.replace('openai_archive', 'clip')}_openai_names.npz"))
    tensors = {name: tensor.read() for name, tensor in read_state_dict(golden.path).items()}
    weights = of.part("w/")
    half = {name for name, value in tensors.items() if value.dtype == np.float16}
    stored = read_clip(_readers(tensors), golden.path, model_of(of).vit, int(of["cfg/text"][2]))
    report.exact("names", sorted(stored.left_out), ["context_length", "input_resolution", "vocab_size"])
    report.exact("activation", stored.activation, "quick_gelu")
    rounded = {name: value.astype(np.float16) if name in half else value for name, value in weights.items()}
    expected = parameters(of, rounded)
    report.exact("parameters", sorted(stored.arrays), sorted(_flat(expected)))
    for name, value in _flat(expected).items():
        report.exact("values", stored.arrays[name].astype(np.float32), value)


def check_maskclip(report: Report, golden: Golden) -> None:
    """The three kinds of dense features, denoising, smoothing, and the mean over templates."""
    vit = model_of(golden).vit
    params = parameters(golden, golden.part("w/"))
    images, text = channels_last(golden["in/pixel_values"]), jnp.asarray(golden["in/text"])
    found, cosines = {}, {}
    for kind in ("tokens", "value", "value_block"):
        run = jax.jit(functools.partial(dense_tokens, kind, vit, "all_heads"))
        found[kind] = run(params["backbone"], jnp.asarray(images))
        features = found[kind].patches @ params["image_projection"]
        cosines[kind] = jnp.einsum("bhwd,nd->bhwn", normalised(features), normalised(text))
        report.array(f"{kind}_features", features, golden[f"out/{kind}_features"])
        report.array(f"{kind}_cosine", cosines[kind], golden[f"out/{kind}_cosine"])
    cls = VisionTransformer(vit).apply({"params": params["backbone"]}, jnp.asarray(images)).cls
    report.array("class_token_features", cls @ params["image_projection"], golden["out/class_token_features"])
    _check_smoothing(report, golden, found["value"], cosines["value"])
    of_templates = jnp.asarray(golden["in/template_features"])
    report.array("template_ensemble", ensemble(of_templates.transpose(1, 0, 2)), golden["out/template_ensemble"])


def _check_smoothing(report: Report, golden: Golden, tokens, cosines) -> None:
    b, h, w, n = cosines.shape
    report.array("keys", tokens.keys.reshape(b, h * w, -1), golden["out/keys"])
    report.array("keys_projected", tokens.keys_projected.reshape(b, h * w, -1), golden["out/keys_projected"])
    probabilities = probabilities_of(cosines, 100.0)
    report.array("best_probability", probabilities.max((1, 2)), golden["out/value_best_probability"], SOFTMAX)
    ours = np.asarray(denoised(cosines, probabilities, float(golden["in/pd_threshold"]))).reshape(b, h * w, n)
    off, recorded = ours == -100, golden["out/value_denoised"]
    report.exact("denoised classes", off, recorded == -100)
    report.array("denoised", ours[~off], recorded[~off])
    for how in ("channels", "tokens", "repository"):
        ours = smoothed(probabilities, tokens, how, float(golden["in/ks_threshold"]))
        report.array(f"smoothed_{how}", ours.reshape(b, h * w, n), golden[f"out/value_smoothed_{how}"], SOFTMAX)


def check_tokenizer(report: Report, golden: Golden) -> None:
    """Ids of texts, with the published merges or those in the file."""
    lines = golden.arrays.get("in/merge_lines")
    for name, expected in golden.part("out/ids").items():
        tokenizer = ClipTokenizer(expected.shape[1], None if lines is None else lines.tolist())
        ids = np.stack([tokenizer(str(text)) for text in golden["in/texts"]])
        report.exact(f"ids{name}", ids, expected)
        if lines is not None:
            report.exact("vocabulary_size", tokenizer.vocabulary_size, golden["out/vocabulary_size"])


CLIP_CASES = {
    "clip": check_clip,
    "openai_archive": check_archive,
    "maskclip": check_maskclip,
    "tokenizer": check_tokenizer,
}


def model_of(golden: Golden) -> Clip:
    """The model of a file's sizes. Its pixels are those of the file, which are normalised already."""
    width, depth, heads, mlp, image, patch = map(int, golden["cfg/vision"])
    text_width, text_depth, text_heads, text_mlp, context, vocabulary = map(int, golden["cfg/text"])
    options = dict(mlp="quick_gelu", layer_norm_epsilon=1e-5, norm_before=True, patch_bias=False)
    vit = ViTConfig(width, depth, heads, mlp, patch, image, **options)
    text = TextConfig(text_width, text_depth, text_heads, text_mlp)
    return Clip(vit, text, int(golden["cfg/projection"]), vocabulary, context)


def parameters(golden: Golden, weights) -> dict:
    """The recorded weights as our tree, float32."""
    stored = read_clip(_readers(weights), golden.path, model_of(golden).vit, int(golden["cfg/text"][2]))
    tree: dict = {}
    for name, value in stored.arrays.items():
        *folders, leaf = name.split("/")
        functools.reduce(lambda at, folder: at.setdefault(folder, {}), folders, tree)[leaf] = jnp.asarray(
            value, jnp.float32
        )
    return tree


def heads_of(golden: Golden) -> tuple[int, int]:
    """Of both towers."""
    return int(golden["cfg/vision"][2]), int(golden["cfg/text"][2])


def _readers(arrays):
    return {name: functools.partial(arrays.__getitem__, name) for name in arrays}


def _flat(tree) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(key.key for key in path): np.asarray(leaf) for path, leaf in leaves}
