"""AugReg files: what is taken, what is resized, and the one line that says why a file does not fit."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from larvseg_jax.config import from_config
from larvseg_jax.errors import UserError
from larvseg_jax.methods.larvseg.network import Network
from larvseg_jax.models.vit import VisionTransformer
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.weights.pretrained import load_pretrained
from larvseg_jax.weights.stored_weights import describe_size
from tests.weights import learnt_runs
from tests.weights.augreg_files import load_backbone

CONFIG = ViTConfig(width=8, depth=2, num_heads=2, mlp_dim=12, patch_size=4, image_size=12)
POSITIONS = "Transformer/posembed_input/pos_embedding"
FRESH = 7.0
ERF = np.vectorize(math.erf, otypes=[np.float64])
SIZES = {"Ti": (192, 12, 3, 768), "S": (384, 12, 6, 1536), "B": (768, 12, 12, 3072), "L": (1024, 24, 16, 4096)}


def backbone_params(config=CONFIG):
    images = jnp.zeros((1, 12, 12, 3))
    return jax.eval_shape(VisionTransformer(config).init, jax.random.key(0), images)["params"]


def segmenter_params(config=CONFIG, classes=4):
    one = jnp.zeros(1, jnp.int32), jnp.ones(1)
    init = Network(config, classes).init
    shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 12, 12, 3)), *one)["params"]
    return jax.tree.map(lambda x: jnp.full(x.shape, FRESH), shapes)


def augreg_shapes(size, patch, pixels, depth=None, classes=1000):
    """Names and shapes of a published file, written down from google-research/vision_transformer."""
    width, full_depth, heads, mlp = SIZES[size]
    shapes = {
        "cls": (1, 1, width),
        "embedding/kernel": (patch, patch, 3, width),
        "embedding/bias": (width,),
        POSITIONS: (1, 1 + (pixels // patch) ** 2, width),
        "Transformer/encoder_norm/scale": (width,),
        "Transformer/encoder_norm/bias": (width,),
        "head/kernel": (width, classes),
        "head/bias": (classes,),
    }
    for i in range(depth or full_depth):
        block = f"Transformer/encoderblock_{i}"
        for norm in ("LayerNorm_0", "LayerNorm_2"):
            shapes |= {f"{block}/{norm}/scale": (width,), f"{block}/{norm}/bias": (width,)}
        attention = f"{block}/MultiHeadDotProductAttention_1"
        for part in ("query", "key", "value"):
            shapes[f"{attention}/{part}/kernel"] = (width, heads, width // heads)
            shapes[f"{attention}/{part}/bias"] = (heads, width // heads)
        shapes |= {f"{attention}/out/kernel": (heads, width // heads, width), f"{attention}/out/bias": (width,)}
        shapes |= {f"{block}/MlpBlock_3/Dense_0/kernel": (width, mlp), f"{block}/MlpBlock_3/Dense_0/bias": (mlp,)}
        shapes |= {f"{block}/MlpBlock_3/Dense_1/kernel": (mlp, width), f"{block}/MlpBlock_3/Dense_1/bias": (width,)}
    return shapes


def file_arrays(side=3):
    """Arrays as they stand in a small file whose pictures have side x side patches."""
    rng = np.random.default_rng(0)
    shapes = {name: x.shape for name, x in traverse_util.flatten_dict(backbone_params(), sep="/").items()}
    shapes |= {POSITIONS: (1, 1 + side**2, 8), "head/kernel": (8, 5), "head/bias": (5,)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def save(tmp_path):
    def save(arrays):
        np.savez(tmp_path / "weights.npz", **arrays)
        return tmp_path / "weights.npz"

    return save


def flat(params):
    return traverse_util.flatten_dict(params, sep="/")


@pytest.mark.parametrize("prefix", ["", "opt/target/"])
def test_every_array_arrives_under_its_name(save, prefix):
    arrays = file_arrays()
    path = save({prefix + name: value for name, value in arrays.items()})
    params, report = load_backbone(path, backbone_params(), CONFIG)
    assert jax.tree.structure(params) == jax.tree.structure(backbone_params())
    for name, value in flat(params).items():
        np.testing.assert_array_equal(value, arrays[name])
    assert report.extra == ("head/bias", "head/kernel")
    assert set(report.loaded) == {f"backbone/{name}" for name in flat(backbone_params())}
    assert report.resized == ""


def test_a_segmenter_keeps_its_fresh_head_and_the_report_tells_all(save):
    arrays = file_arrays(side=5) | {"pre_logits/kernel": np.zeros((8, 8), np.float32)}
    params, report = load_pretrained(save(arrays), segmenter_params(), CONFIG, ("sky", "wall"))
    assert all((np.asarray(x) == FRESH).all() for x in jax.tree.leaves(params["head"]))
    np.testing.assert_array_equal(params["backbone"]["cls"], arrays["cls"])
    assert str(report).splitlines() == [
        "AugReg file weights.npz: ViT/4 of width 8, depth 2, 2 heads, MLP 12 at 20 pixels",
        "    loaded: 38 arrays (float32)",
        "    missing, left as initialised: head/beta, head/class_embeddings, head/gamma, head/proj_classes, "
        "head/proj_patch",
        "    extra, left out: head/bias, head/kernel, pre_logits/kernel",
        "    resized: position embedding 5x5 -> 3x3",
        "    pixels: the weights were trained with 'half', the model has 'imagenet': "
        "--config.model.pixels=half is theirs",
    ]


def test_of_a_run_only_the_parts_that_are_asked_for(tmp_path):
    config = learnt_runs.config_of(tmp_path, "")
    run = from_config(config)
    parameters = learnt_runs.random_parameters(run, seed=0)
    folder = learnt_runs.write_run(config, parameters)
    fresh = jax.tree.map(lambda x: jnp.full(x.shape, FRESH), traverse_util.unflatten_dict(parameters, sep="/"))
    params, report = load_pretrained(folder, fresh, run.vit, run.vocabulary.classes, "^backbone/")
    for name, value in flat(params).items():
        np.testing.assert_array_equal(value, parameters[name] if name.startswith("backbone/") else FRESH)
    assert report.missing == tuple(sorted(name for name in parameters if name.startswith("head/")))
    with pytest.raises(UserError, match=r"pretrained_parts='\^back/' finds nothing in .* backbone or head"):
        load_pretrained(folder, fresh, run.vit, run.vocabulary.classes, "^back/")


def forward(arrays, images, patch):
    """The transformer in NumPy and float64, straight from the arrays of a file on its own grid."""
    a = {name: value.astype(np.float64) for name, value in arrays.items()}

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * a[f"{name}/scale"] + a[f"{name}/bias"]

    b, height, width, _ = images.shape
    cut = images.astype(np.float64).reshape(b, height // patch, patch, width // patch, patch, 3)
    x = np.tensordot(cut, a["embedding/kernel"], axes=((2, 4, 5), (0, 1, 2))).reshape(b, -1, a["cls"].shape[-1])
    x = x + a["embedding/bias"]
    x = np.concatenate([np.repeat(a["cls"], b, 0), x], 1) + a[POSITIONS]
    for i in range(sum(name.endswith("LayerNorm_0/scale") for name in a)):
        block = f"Transformer/encoderblock_{i}"
        attention = f"{block}/MultiHeadDotProductAttention_1"
        y = norm(x, f"{block}/LayerNorm_0")
        q, k, v = (
            np.tensordot(y, a[f"{attention}/{p}/kernel"], 1) + a[f"{attention}/{p}/bias"]
            for p in ("query", "key", "value")
        )
        scores = np.einsum("bqhe,bkhe->bhqk", q, k, optimize=True) / math.sqrt(q.shape[-1])
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mixed = np.einsum("bhqk,bkhe->bqhe", weights, v, optimize=True)
        x = x + np.tensordot(mixed, a[f"{attention}/out/kernel"], 2) + a[f"{attention}/out/bias"]
        y = norm(x, f"{block}/LayerNorm_2") @ a[f"{block}/MlpBlock_3/Dense_0/kernel"]
        y = y + a[f"{block}/MlpBlock_3/Dense_0/bias"]
        y = 0.5 * y * (1 + ERF(y / math.sqrt(2)))
        x = x + y @ a[f"{block}/MlpBlock_3/Dense_1/kernel"] + a[f"{block}/MlpBlock_3/Dense_1/bias"]
    return norm(x, "Transformer/encoder_norm")[:, 1:].reshape(b, height // patch, width // patch, -1)


@pytest.mark.parametrize(
    ("size", "patch", "pixels"),
    [
        ("Ti", 16, 224),
        ("S", 32, 384),
        ("S", 16, 224),
        ("B", 32, 224),
        pytest.param("B", 16, 384, marks=pytest.mark.slow),
        pytest.param("L", 16, 224, marks=pytest.mark.slow),
    ],
)
def test_published_shapes_give_the_features_of_an_independent_forward_pass(save, size, patch, pixels):
    """True names and shapes, random numbers of the spread of trained weights, two blocks."""
    rng = np.random.default_rng(3)
    shapes = augreg_shapes(size, patch, pixels, depth=2, classes=10)
    arrays = {n: (rng.standard_normal(s) * (0.2 if len(s) < 2 else 0.04)).astype(np.float32) for n, s in shapes.items()}
    arrays |= {name: value + np.float32(1) for name, value in arrays.items() if name.endswith("/scale")}
    width, _, heads, mlp = SIZES[size]
    config = ViTConfig(width, 2, heads, mlp, patch_size=patch, image_size=pixels)
    params, report = load_backbone(save(arrays), backbone_params(config), config)
    assert (report.resized, len(report.loaded)) == ("", len(arrays) - 2)
    images = rng.standard_normal((1, pixels, pixels, 3)).astype(np.float32)
    with jax.default_matmul_precision("highest"):
        features = jax.jit(VisionTransformer(config).apply)({"params": params}, images).patches
    expected = forward(arrays, images, patch)
    np.testing.assert_allclose(features, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("size", "patch", "pixels"),
    [("Ti", 16, 224), ("S", 32, 384), ("S", 16, 384), ("B", 32, 224), ("B", 16, 384), ("L", 16, 384)],
)
def test_sizes_are_called_what_the_field_calls_them(size, patch, pixels):
    shapes = {f"backbone/{name}": shape for name, shape in augreg_shapes(size, patch, pixels).items()}
    assert describe_size(shapes) == f"ViT-{size}/{patch} at {pixels} pixels"


def test_a_file_of_another_size_is_named(save):
    path = save({name: np.zeros(shape, np.float16) for name, shape in augreg_shapes("Ti", 16, 384).items()})
    width, _, heads, mlp = SIZES["S"]
    config = ViTConfig(width, 12, heads, mlp, patch_size=16, image_size=512)
    message = refusal(path, config)
    assert "does not fit the model: it is a ViT-Ti/16 at 384 pixels, the model a ViT-S/16 at 512 pixels; " in message
    assert "wrong shape: backbone/Transformer/encoder_norm/bias (192,) and not (384,), " in message
    assert " more" in message
    assert len(message) < 1500


@pytest.mark.parametrize("side", [2, 5])
def test_the_position_embedding_is_resized_and_its_class_entry_kept(save, side):
    arrays = file_arrays(side)
    params, report = load_backbone(save(arrays), backbone_params(), CONFIG)
    ours, theirs = flat(params)[POSITIONS], arrays[POSITIONS]
    np.testing.assert_array_equal(ours[0, 0], theirs[0, 0])
    assert report.resized == f"{side}x{side} -> 3x3"

    def kernel(t, a=-0.75):
        t = abs(t)
        if t <= 1:
            return (a + 2) * t**3 - (a + 3) * t**2 + 1
        return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0

    grid = theirs[0, 1:].reshape(side, side, 8)
    centres = [(i + 0.5) * side / 3 - 0.5 for i in range(3)]
    for i, v in enumerate(centres):
        for j, u in enumerate(centres):
            expected = sum(
                kernel(v - y) * kernel(u - x) * grid[min(max(y, 0), side - 1), min(max(x, 0), side - 1)]
                for y in range(math.floor(v) - 1, math.floor(v) + 3)
                for x in range(math.floor(u) - 1, math.floor(u) + 3)
            )
            np.testing.assert_allclose(ours[0, 1 + 3 * i + j], expected, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_precisions_become_float32_and_the_report_says_so(save, dtype):
    arrays = {name: value.astype(jnp.dtype(dtype)) for name, value in file_arrays().items()}
    params, report = load_backbone(save(arrays), backbone_params(), CONFIG)
    assert {x.dtype for x in jax.tree.leaves(params)} == {np.dtype("float32")}
    np.testing.assert_array_equal(params["cls"], arrays["cls"].astype(np.float32))
    assert f"loaded: 38 arrays ({dtype}, converted to float32)" in str(report)


def refusal(path, config=CONFIG):
    with pytest.raises(UserError) as caught:
        load_backbone(path, backbone_params(config), config)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_all_differences_are_told_at_once(save):
    arrays = file_arrays()
    del arrays["cls"]
    arrays["embedding/bias"] = np.zeros(9, np.float32)
    arrays["Transformer/extra_norm/bias"] = np.zeros(8, np.float32)
    arrays["Transformer/encoder_norm/bias"] = np.zeros(8, np.int32)
    message = refusal(save(arrays))
    assert "missing: backbone/cls; " in message
    assert "unknown: backbone/Transformer/extra_norm/bias; " in message
    assert "wrong shape: backbone/embedding/bias (9,) and not (8,); " in message
    assert message.endswith("wrong dtype (no floating-point numbers): backbone/Transformer/encoder_norm/bias int32")
    assert "it is a" not in message  # of the same size


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_numbers_that_are_none_are_refused(save, value):
    arrays = file_arrays()
    arrays["embedding/bias"] = arrays["embedding/bias"].astype(np.float64)
    arrays["embedding/bias"][3] = value
    assert "no float32 numbers in backbone/embedding/bias" in refusal(save(arrays))


def test_a_position_embedding_of_no_square_grid_is_refused(save):
    arrays = file_arrays()
    arrays[POSITIONS] = np.zeros((1, 8, 8), np.float32)
    assert f"backbone/{POSITIONS} (1, 8, 8) and not (1, 10, 8)" in refusal(save(arrays))


def test_weights_of_another_stem_or_depth_are_refused(save):
    path = save(file_arrays())
    message = refusal(path, dataclasses.replace(CONFIG, stem="conv"))
    assert "missing: backbone/stem/conv_0/bias, backbone/stem/conv_0/kernel" in message
    assert "unknown: backbone/embedding/bias, backbone/embedding/kernel" in message
    assert "the model a ViT/4 of width 8, depth 2, 2 heads, MLP 12 at 12 pixels with a conv stem" in message
    message = refusal(path, dataclasses.replace(CONFIG, depth=3))
    assert "missing: backbone/Transformer/encoderblock_2/LayerNorm_0/bias" in message
    message = refusal(path, dataclasses.replace(CONFIG, depth=1))
    assert "unknown: backbone/Transformer/encoderblock_1/LayerNorm_0/bias" in message


def test_a_hybrid_is_called_one(save):
    assert "is a hybrid" in refusal(save(file_arrays() | {"conv_root/kernel": np.zeros((7, 7, 3, 64), np.float32)}))


def test_a_file_that_is_not_there_is_told_where_to_find(tmp_path):
    name = "S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0.npz"
    message = refusal(tmp_path / name)
    assert f"gs://vit_models/augreg/{name} = https://storage.googleapis.com/vit_models/augreg/{name}" in message


@pytest.mark.parametrize(("name", "problem"), [("x.h5", "does not exist"), ("y.onnx", "no kind of weights")])
def test_other_kinds_of_files_are_refused(tmp_path, name, problem):
    (tmp_path / "y.onnx").touch()
    with pytest.raises(UserError, match=rf"{problem}.*: give an AugReg \.npz, the folder of a run"):
        load_pretrained(tmp_path / name, segmenter_params(), CONFIG, ("sky",))


@pytest.mark.parametrize("bad", ["folder", "text", "empty", "one array", "pickled", "cut off", "changed byte"])
def test_files_that_cannot_be_read_are_named(tmp_path, save, bad):
    path = tmp_path / "bad.npz"
    if bad == "folder":
        path.mkdir()
    elif bad == "text":
        path.write_text("no weights here")
    elif bad == "empty":
        path.touch()
    elif bad == "one array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif bad == "pickled":
        np.savez(path, cls=np.array([{"a": 1}], dtype=object))
    elif bad == "cut off":
        path.write_bytes(save(file_arrays()).read_bytes()[:-100])
    elif bad == "changed byte":
        content = bytearray(save(file_arrays()).read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
    assert "cannot read" in refusal(path)


@pytest.mark.parametrize("name", ["vit_npz_s0", "vit_npz_s1"])
def test_goldens_with_two_resizings_in_a_row(shared, name):
    from tests.parity.golden import Golden
    from tests.parity.table import Report
    from tests.parity.vit_cases import check_vit_npz

    report = Report()
    report.start("vit_npz", name)
    with jax.default_matmul_precision("highest"):
        check_vit_npz(report, Golden.load(shared / "goldens" / "given" / f"{name}_io.npz"))
    assert report.failures == []
