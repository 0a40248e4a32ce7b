"""Checkpoints of the original: every array where it belongs, the recorded features and logits, rows by name."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from larvseg_jax import cli
from larvseg_jax.config import network_sections
from larvseg_jax.errors import UserError
from larvseg_jax.import_original import import_original
from larvseg_jax.methods.larvseg.network import Network
from larvseg_jax.models.cosine_head import CosineHead, cosine_scores, standardised_logits
from larvseg_jax.models.vit import VisionTransformer
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.trained import load_trained
from larvseg_jax.vocabulary import class_lists
from larvseg_jax.weights.original import OriginalCheckpoint, union_classes
from larvseg_jax.weights.pretrained import load_pretrained
from larvseg_jax.weights.safetensors_file import load_safetensors
from larvseg_jax.weights.torch_file import read_state_dict
from tests.parity.golden import Golden, channels_first, channels_last, head_forward, merged_columns
from tests.parity.table import Report
from tests.weights.pth_files import TINY, numbers, write_pth

FRESH = 7.0


def segmenter_params(vit, classes):
    """Parameters of the right shapes, all of one value."""
    images = jnp.zeros((1, vit.image_size, vit.image_size, 3))
    init = Network(vit, classes).init
    shapes = jax.eval_shape(init, jax.random.key(0), images, jnp.zeros(1, jnp.int32), jnp.ones(1))["params"]
    return jax.tree.map(lambda x: jnp.full(x.shape, FRESH), shapes)


def test_every_array_arrives_where_it_belongs():
    """Spot checks by index: what multiplies what is fixed by (out, in) there and (in, out) here."""
    arrays = OriginalCheckpoint.open(TINY).weights(("",) * 247, heads=2).arrays
    block = "backbone.layers.1."
    ours = {name.removeprefix("backbone/Transformer/encoderblock_1/"): value for name, value in arrays.items()}
    stacked = numbers(f"{block}attn.attn.in_proj_weight", (48, 16))
    for place, name in enumerate(("query", "key", "value")):
        kernel = ours[f"MultiHeadDotProductAttention_1/{name}/kernel"]
        assert kernel.shape == (16, 2, 8)
        # Input feature 3 to feature 5 of head 1.
        assert kernel[3, 1, 5] == stacked[16 * place + 8 + 5, 3]
        bias = ours[f"MultiHeadDotProductAttention_1/{name}/bias"]
        assert bias[1, 5] == numbers(f"{block}attn.attn.in_proj_bias", (48,))[16 * place + 13]
    assert (
        ours["MultiHeadDotProductAttention_1/out/kernel"][1, 5, 3]
        == numbers(f"{block}attn.attn.out_proj.weight", (16, 16))[3, 13]
    )
    assert ours["MlpBlock_3/Dense_0/kernel"][3, 30] == numbers(f"{block}ffn.layers.0.0.weight", (32, 16))[30, 3]
    assert ours["MlpBlock_3/Dense_1/kernel"][30, 3] == numbers(f"{block}ffn.layers.1.weight", (16, 32))[3, 30]
    patches = numbers("backbone.patch_embed.projection.weight", (16, 3, 4, 4))
    assert ours["backbone/embedding/kernel"][1, 2, 0, 7] == patches[7, 0, 1, 2]
    np.testing.assert_array_equal(ours["head/proj_patch"], numbers("decode_head.proj_patch", (16, 16)))


def test_the_bank_becomes_slot_means_and_slots_never_written_are_zero():
    bank = OriginalCheckpoint.open(TINY).bank()
    queue = numbers("decode_head.queue", (247, 2, 2, 16)).astype(np.float64)
    for row in range(247):
        cursor, wraps = row % 2, row % 3
        assert (bank["cursor"][row], bank["wraps"][row]) == (cursor, wraps)
        for slot in range(2):
            unit = [v / np.sqrt((v**2).sum()) for v in queue[row, slot]]
            expected = (unit[0] + unit[1]) / 2 if wraps or slot < cursor else np.zeros(16)
            np.testing.assert_allclose(bank["slots"][row, slot], expected, atol=1e-6)
        np.testing.assert_allclose(bank["class_mean"][row], bank["slots"][row].mean(0), atol=1e-6)


@pytest.mark.parametrize(
    ("vit_name", "head_name"), [("vit_s0", "head_forward_ade150_s0"), ("vit_s1", "head_forward_coco171_s1")]
)
def test_recorded_state_dicts_give_the_recorded_features_and_logits(shared, tmp_path, vit_name, head_name):
    given = shared / "goldens" / "given"
    vit, head = Golden.load(given / f"{vit_name}.npz"), Golden.load(given / f"{head_name}.npz")
    state = {f"module.backbone.{n.removeprefix('param:')}": v for n, v in vit.arrays.items() if n.startswith("param:")}
    state |= {f"module.decode_head.{n}": head[n] for n in ("cls_emb", "proj_patch", "proj_classes", "gamma", "beta")}
    path = write_pth(tmp_path / "authors.pth", {"meta": {"iter": 7}, "state_dict": state, "optimizer": {}})
    meta = vit.meta
    grid = tuple(meta["pos_grid"])
    assert grid[0] == grid[1]
    config = ViTConfig(
        width=meta["embed"],
        depth=meta["depth"],
        num_heads=meta["heads"],
        mlp_dim=int(meta["embed"] * meta["mlp_ratio"]),
        patch_size=meta["patch"],
        image_size=grid[0] * meta["patch"],
    )
    # The vocabulary is the union in the order of the rows: what the file does not say, the union file does.
    classes = tuple(head["all_cls"].tolist())
    params, report = load_pretrained(path, segmenter_params(config, len(classes)), config, classes)
    assert (report.rows_found, report.rows_fresh, report.resized) == (247, (), "")

    errors = Report()
    errors.start("original", path.name)
    with jax.default_matmul_precision("highest"):
        image = jnp.asarray(channels_last(vit["image"]))
        features = jax.jit(VisionTransformer(config).apply)({"params": params["backbone"]}, image).patches
        columns = merged_columns(head)
        ours = CosineHead(len(classes), config.width)
        patches, table = head_forward(ours, params["head"], jnp.asarray(channels_last(head["features"])), columns)
        scores, logits = cosine_scores(patches, table.vectors), standardised_logits(patches, table)
    errors.array("features", channels_first(features), vit["features"])
    errors.array("scores", channels_first(scores[..., columns.of_label]), head["scores"])
    errors.array("masks", channels_first(logits[..., columns.of_label]), head["masks"])
    assert errors.failures == []


@pytest.mark.parametrize(("golden", "union"), [("ade150", "a150_c171"), ("coco171raw", "c171raw_a150")])
def test_unions_have_the_order_of_the_recorded_rows(shared, golden, union):
    recorded = Golden.load(shared / "goldens" / "given" / f"head_forward_{golden}_s0.npz")["all_cls"]
    assert union_classes(len(recorded), None, TINY) == tuple(recorded.tolist())
    assert union_classes(len(recorded), f"union_{union}", TINY) == tuple(recorded.tolist())


def test_the_command_writes_a_model_that_can_be_rebuilt(tmp_path, capsys):
    target = tmp_path / "model.safetensors"
    cli.run("import_original", ["--file", str(TINY), "--out", str(target), "--heads", "2"])
    assert "decode_head.queue" not in capsys.readouterr().out
    saved = load_safetensors(target)
    metadata = saved.metadata
    method, vit = network_sections(metadata.settings)
    assert vit == ViTConfig(width=16, depth=2, num_heads=2, mlp_dim=32, patch_size=4, image_size=12)
    assert method.name == "larvseg"
    assert list(metadata.classes) == class_lists.raw("union_a150_c171")["classes"]
    # 171 names of COCO-Stuff are 160 rows; all of them have masks.
    assert (len(metadata.base), len(metadata.novel)) == (160, 247 - 160)
    assert "wall" in metadata.base
    assert "bathtub" in metadata.novel
    assert saved.memory["slots"].shape == (247, 2, 16)
    trained = load_trained(target)
    assert (trained.step, trained.vocabulary.classes) == (-1, metadata.classes)
    vectors = trained.method.scorer(trained.vocabulary.label_set(metadata.classes[:3])).vectors
    assert trained.method.embed(trained.params, jnp.zeros((1, 12, 12, 3))).shape == (1, 3, 3, 16)
    assert vectors(trained.params, None).vectors.shape == (3, 16)
    assert float(trained.params["head"]["gamma"]) == float(numbers("decode_head.gamma", ())[()])


def test_rows_go_to_their_names_in_another_vocabulary():
    names = class_lists.raw("union_a150_c171")["classes"]
    vit = ViTConfig(width=16, depth=2, num_heads=2, mlp_dim=32, patch_size=4, image_size=12)
    classes = ("nothing of the sort", names[200], names[3])
    params, report = load_pretrained(TINY, segmenter_params(vit, 16), vit, classes)
    table, rows = params["head"]["class_embeddings"], numbers("decode_head.cls_emb", (247, 16))
    np.testing.assert_array_equal(table[1], rows[200])
    np.testing.assert_array_equal(table[2], rows[3])
    assert (np.asarray(table[0]) == FRESH).all()
    assert (np.asarray(table[3:]) == FRESH).all()
    assert (report.rows_found, report.rows_fresh, report.rows_unused) == (2, (classes[0],), 245)


def test_what_does_not_fit_is_told_with_the_names(tmp_path):
    tensors = {name: tensor.read() for name, tensor in read_state_dict(TINY).items()}
    vit = ViTConfig(width=16, depth=2, num_heads=2, mlp_dim=32, patch_size=4, image_size=12)
    del tensors["backbone.layers.0.ln2.bias"], tensors["decode_head.gamma"]
    tensors["backbone.dist_token"] = np.zeros((1, 1, 16), np.float32)
    tensors["auxiliary_head.conv.weight"] = np.zeros(3, np.float32)
    path = write_pth(tmp_path / "x.pth", tensors)
    with pytest.raises(UserError) as caught:
        load_pretrained(path, segmenter_params(vit, 16), vit, ("wall",))
    assert "missing: backbone/Transformer/encoderblock_0/LayerNorm_2/bias, head/gamma" in str(caught.value)
    assert "unknown: backbone/dist_token" in str(caught.value)
    assert "auxiliary" not in str(caught.value)
    with pytest.raises(UserError, match="with 3 heads has not"):
        OriginalCheckpoint.open(TINY).weights(("",) * 247, heads=3)


@pytest.mark.parametrize(
    ("rows", "key", "message"),
    [
        (251, None, r"251 class embeddings, and no union that many \(union_a150_c171 247.*--union="),
        (247, "union_a847_c171", "247 class embeddings, union_a847_c171 913 different classes: use --union=union_a150"),
        (247, "a150", "no class list 'a150'.*or one of the unions union_a150_c171"),
    ],
)
def test_rows_without_names_are_refused(rows, key, message):
    with pytest.raises(UserError, match=message):
        union_classes(rows, key, Path("authors.pth"))


def test_heads_that_the_width_does_not_tell_must_be_given(tmp_path):
    with pytest.raises(UserError, match="is 16 wide, no multiple of 64: give the number of --heads"):
        import_original(TINY, tmp_path / "m.safetensors")


def test_the_command_tells_bad_input_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.run("import_original", ["--file", str(tmp_path / "no.pth"), "--out", str(tmp_path / "m.safetensors")])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: cannot read")
    assert error.count("\n") == 1
    assert os.listdir(tmp_path) == []
