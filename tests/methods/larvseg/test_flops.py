"""FLOPs by formula against the products in the traced step, against XLA's own count, and against the literature."""

import dataclasses
import importlib
import math

import jax
import pytest

from configs import common
from larvseg_jax.assemble import abstract_batch, lower_step, make_method, optimizer_of, state_layout
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.methods.larvseg import flops
from larvseg_jax.models.flops import BACKBONE, backbone_flops
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.training.step import make_train_step
from tests import tiny

NAMES = tuple(f"class {i}" for i in range(512))
BLOCK = 64
# name: changes of the config below; each lets another part weigh more than the tolerance
CASES = {
    "deep": {"model.depth": 4},
    "many classes": {"model.depth": 1, "model.mlp_dim": 64, "streams.tags.max_labels": 1},
    "many labels": {"model.depth": 1, "model.mlp_dim": 64, "streams.tags.max_labels": 48},
    "region": {"model.depth": 1, "streams.tags.max_labels": 48, "method.ca_classifier.variant": "region"},
    "own bank": {"model.depth": 1, "method.ca_classifier.variant": "own_bank"},
    "no attention": {"model.depth": 1, "streams.tags.lambda_aux": 0.0},
    "large masks": {"model.depth": 1, "streams.masks.batch_size": 6, "streams.masks.downsample_rate": 1},
    "padded": {"streams.masks.crop_size": 84, "streams.tags.crop_size": 36},  # not a whole number of patches
    "remat": {"model.remat": True},
    "frozen": {"optimizer.frozen": "^backbone/"},
    "last block learns": {"model.depth": 3, "optimizer.frozen": common.frozen_but_last(3, 1)},
    "final norm learns": {"optimizer.frozen": common.frozen_but_last(2, 0)},
    "frozen above the stem": {"optimizer.frozen": "encoderblock|head/proj_patch"},
    "kernels frozen": {"optimizer.frozen": "kernel$|head/proj_classes"},
    "queries learn": {"optimizer.frozen": "^backbone/(?!.*query)|class_embeddings"},
}


def small(changes):
    config = tiny.get_config()
    config.vocabulary = dict(classes=NAMES, base=NAMES[:64], novel=NAMES[64:], background="", ignore_in_eval=())
    config.model.update(width=64, depth=2, num_heads=4, mlp_dim=256, patch_size=8, image_size=48, stem="patch")
    config.streams.masks.update(classes=NAMES[:64], batch_size=2, crop_size=64)
    config.streams.tags.update(always_tags=(), batch_size=3, crop_size=48, max_labels=4)
    config.method.ca_classifier.class_block = BLOCK
    config.evals.val.window = 48
    config.update_from_flattened_dict(changes)
    return from_config(config)


def formula(run):
    return method_of(run).flops()


def method_of(run):
    """As for several devices, whose attention neither loops over heads nor computes anything again."""
    return make_method(run, make_mesh(8, 1))


def one_device():
    return make_mesh(1, 1, jax.devices()[:1])


def counted_by_xla(run):
    mesh = one_device()
    return lower_step(run, mesh, state_layout(run, mesh), method_of(run)).cost_analysis()["flops"]


def traced_products(run):
    """Twice the multiplications of all matrix products in the step as JAX traces it, loops counted in full."""
    mesh = one_device()
    step = make_train_step(method_of(run), optimizer_of(run), seed=0, frozen=run.optimizer.frozen)
    return products(jax.make_jaxpr(step)(state_layout(run, mesh), abstract_batch(run, mesh)).jaxpr)


def products(jaxpr):
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            inner = math.prod(equation.invars[0].aval.shape[i] for i in contracted)
            total += 2 * inner * math.prod(equation.outvars[0].aval.shape)
        elif equation.primitive.name == "cond":  # attention has an implementation for each platform
            total += max(products(branch.jaxpr) for branch in equation.params["branches"])
        else:
            inside = (getattr(x, "jaxpr", x) for x in jax.tree.leaves(list(equation.params.values()), is_leaf=is_jaxpr))
            total += equation.params.get("length", 1) * sum(products(j) for j in inside if hasattr(j, "eqns"))
    return total


def is_jaxpr(x):
    return hasattr(x, "eqns") or hasattr(x, "jaxpr")


@pytest.mark.parametrize("case", [case for case in CASES if case != "remat"])
def test_formula_has_all_products_of_the_step(case):
    run = small(CASES[case])
    # Missing are products with vectors: means over classes and a few per pixel.
    assert 0.994 < sum(formula(run).values()) / traced_products(run) <= 1.0


def test_recomputation_is_not_counted():
    plain, remat = small({}), small(CASES["remat"])
    assert formula(remat) == formula(plain)
    assert traced_products(remat) > 1.1 * traced_products(plain)


@pytest.mark.parametrize("stem", ["patch", "conv"])
def test_formula_is_what_xla_counts_but_for_elementwise_operations(stem):
    run = small({"model.stem": stem, "model.width": 192, "model.mlp_dim": 768, "method.ca_classifier.class_block": 512})
    assert 0.95 < sum(formula(run).values()) / counted_by_xla(run) < 1.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "class_head", "ca_classifier"), [("c171_wa150", 0.02, 0.002), ("c171_i21k", 0.05, 0.03)]
)
def test_vit_b_of_the_paper(name, class_head, ca_classifier):
    run = from_config(importlib.import_module(f"configs.{name}").get_config(""))
    parts = formula(run)
    # XLA counts the body of a loop once, and mining is a loop over blocks of classes.
    tagged = next(stream for stream in run.streams.values() if not stream.view.labels_pixels)
    classes, block = len(run.catalogue.label_set(tagged)), 1024
    once = sum(parts.values()) - parts["mining"] * (1 - min(1.0, block / classes))
    assert 0.985 < once / counted_by_xla(run) < 1.0
    assert flops.share(parts, flops.CLASS_HEAD) < class_head
    assert flops.share(parts, flops.CA_CLASSIFIER) < ca_classifier


def test_forward_pass_of_vit_b_16_at_224():
    vit = ViTConfig(width=768, depth=12, num_heads=12, mlp_dim=3072, patch_size=16, image_size=224)
    parts = backbone_flops(vit, images=2, side=224)
    forward = parts.pop("stem") / 2 + sum(parts.values()) / 3
    assert forward / 2 / 2e9 == pytest.approx(17.58, rel=0.002)  # GMACs that timm and DeiT print, with a head of 1000
    # Three numbers by hand: 12 blocks, 2 pictures, 197 tokens, forward and backward.
    assert parts["mlp"] == 3 * 12 * 2 * (2 * 197) * (2 * 768 * 3072)
    assert parts["attention"] == 3 * 12 * 2 * (197 * 197) * (2 * 2 * 768)
    assert parts["position_embedding"] == 0


def test_registers_are_tokens_and_swiglu_has_three_products():
    """By hand: 5 x 5 patches, class token, 4 registers; the first layer of SwiGLU has two outputs a hidden feature."""
    options = dict(registers=4, mlp="swiglu", layer_scale=True)
    vit = ViTConfig(width=12, depth=3, num_heads=3, mlp_dim=32, patch_size=4, image_size=20, **options)
    parts = backbone_flops(vit, images=2, side=20)
    assert parts["mlp"] == 3 * 3 * 2 * (2 * 30) * (12 * 64 + 32 * 12)
    assert parts["qkv"] == 3 * 3 * 2 * (2 * 30) * (12 * 36)
    assert parts["attention"] == 3 * 3 * 2 * 2 * (30 * 30) * (2 * 12)
    without = backbone_flops(dataclasses.replace(vit, class_token=False, registers=0), images=2, side=20)
    assert without["attention"] == 3 * 3 * 2 * 2 * (25 * 25) * (2 * 12)


def test_parts_of_both_kinds_of_streams():
    vit = ViTConfig(width=10, depth=1, num_heads=1, mlp_dim=20, patch_size=4, image_size=8)  # 2 x 2 patches
    masks = flops.StreamSizes("masks", images=3, side=8, loss_side=5, classes=7)
    tags = flops.StreamSizes("tags", 2, 8, 5, classes=11, label_slots=6, attention="mined", writes_bank=True)
    parts = flops.step_flops(vit, (masks, tags))
    assert parts["stem"] == 2 * 2 * (5 * 4) * 48 * 10
    assert parts["patch_projection"] == 3 * 2 * (5 * 4) * 10 * 10
    assert parts["class_projection"] == 3 * 2 * (7 + 11) * 10 * 10
    assert parts["mask_logits"] == 3 * 2 * (3 * 4) * 10 * 7
    assert parts["upsampling"] == 2 * 2 * 3 * 7 * (2 * 2 * 5 + 5 * 2 * 5)
    assert parts["mining"] == 2 * 2 * (2 * 4) * 10 * 11 + 2 * 2 * 11 * 10
    assert parts["tag_scores"] == 2 * 2 * 6 * 4 * 10
    assert flops.share(parts, parts) == 1.0
    assert {*BACKBONE, *flops.CLASS_HEAD, *flops.CA_CLASSIFIER} == parts.keys()


def test_the_first_layer_sends_no_gradient_to_the_pictures():
    vit = ViTConfig(width=8, depth=1, num_heads=1, mlp_dim=20, patch_size=4, image_size=8, stem="conv")
    first, second, out = (
        16 * (9 * 3) * 4,
        4 * (9 * 4) * 8,
        4 * 8 * 8,
    )  # 8 pixels to 4 x 4, to 2 x 2, then the dense layer
    assert backbone_flops(vit, images=5, side=8)["stem"] == 2 * 5 * (2 * first + 3 * second + 3 * out)
    for frozen, times in {
        "conv_0/": (1, 3, 3),
        "(conv|norm)_0": (1, 2, 3),
        "_1/|out": (2, 2, 2),
        "b": (1, 1, 1),
    }.items():
        expected = sum(t * size for t, size in zip(times, (first, second, out), strict=True))
        assert backbone_flops(vit, images=5, side=8, frozen=frozen)["stem"] == 2 * 5 * expected


def test_a_chip_has_its_share_of_the_pictures_and_of_the_classes():
    run = small({"streams.tags.batch_size": 4})
    method = make_method(run, make_mesh(2, 4))
    whole, own = method.flops(), method.flops(data=2, model=4)
    ratios = {part: whole[part] / own[part] for part in whole}
    by_picture = {"patch_projection", "tag_scores", "attention_maps", *BACKBONE} - {"position_embedding"}
    assert {part: ratios[part] for part in by_picture} == dict.fromkeys(by_picture, 2)
    by_both = ("mask_logits", "upsampling")
    assert {part: ratios[part] for part in by_both} == dict.fromkeys(by_both, 8)
    assert ratios["class_projection"] == 4
    assert ratios["mining"] == 8
    assert ratios["position_embedding"] == 1
