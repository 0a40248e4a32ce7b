"""Training on cached features is training on the pictures that they were made of; others are refused by name."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from data_pipelines.feature_files import TOKENS, FeatureRecords, read_facts
from data_pipelines.features import view_rng
from data_pipelines.streams import stack
from larvseg_jax import assemble, stored_features
from larvseg_jax.config import from_config
from larvseg_jax.errors import UserError
from larvseg_jax.features import features as making
from larvseg_jax.stored_features import check_weights
from larvseg_jax.weights.digest import digest
from tests import tiny
from tests.features.made import DEPTH, config_of, made

STEPS = 2


@pytest.fixture(scope="module")
def three_views(data, tmp_path_factory):
    """float16 features of three views."""
    return made(tmp_path_factory.mktemp("three"), config_of(data), views=3)


def trained(run, batches):
    """The states and metrics of consecutive steps."""
    mesh = assemble.mesh_of(run)
    method = assemble.make_method(run, mesh)
    state = assemble.fresh_state(run, mesh, method)
    step = assemble.seeded(run, mesh, assemble.lower_step(run, mesh, state, method).compile())
    found = []
    for batch in batches:
        state, metrics = step(state, assemble.batch_placer(run, mesh)(batch))
        found.append(jax.device_get((state, metrics)))
        state = jax.tree.map(jnp.copy, state)
    return found


def pictures_of(run, host, view_of):
    """The batch of pictures of a host batch of features: the same photos, each as the given view of it."""
    streams = assemble.open_streams(dataclasses.replace(run, features=None))
    batch = {}
    for name, stream in streams.items():
        number = {stream.source[i]["id"]: i for i in range(len(stream.source))}
        photos = [number[photo] for photo in host[name]["id"]]
        rows = [
            stream.row(photo, view_rng(run.seed, name, photo, view_of(name, photo, place)))
            for place, photo in enumerate(photos)
        ]
        batch[name] = stack(rows)
    return batch


def largest(tree):
    return max(np.abs(np.asarray(x, np.float64)).max(initial=0) for x in jax.tree.leaves(tree))


def gap(one, other):
    """The largest difference, as a part of the largest value: the gradient of a key's bias is 0 but for rounding."""
    return largest(jax.tree.map(lambda a, b: np.float64(a) - np.float64(b), one, other)) / largest(other)


def assert_same_training(cached, pictures, *, losses, gradients):
    for (ours, metrics), (theirs, expected) in zip(cached, pictures, strict=True):
        assert metrics.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(metrics[name], value, rtol=losses, err_msg=name)
        assert gap(ours.params, theirs.params) < losses
        assert gap(ours.memory, theirs.memory) < losses
        assert gap(ours.opt_state, theirs.opt_state) < gradients  # with momentum it is made of the gradients
    assert pictures[-1][1]["tags/L_aux"] > 0  # the bank was written, read, and taken for full


@pytest.mark.slow
def test_losses_gradients_and_bank_are_those_of_the_pictures(data, one_view, one_device):
    config = config_of(data, features=one_view)
    config.optimizer.update(name="sgd", learning_rate=0.05, weight_decay=0.0, warmup_steps=0)
    run = from_config(config)
    host = assemble.host_batches(run, assemble.open_streams(run), 0)
    batches = [next(host) for _ in range(STEPS)]
    plain = dataclasses.replace(run, features=None)
    pictures = [pictures_of(run, batch, lambda *_: 0) for batch in batches]
    for batch, picture in zip(batches, pictures, strict=True):
        np.testing.assert_array_equal(batch["masks"]["label"], picture["masks"]["label"])
        np.testing.assert_array_equal(batch["tags"]["tags"], picture["tags"]["tags"])
    expected = trained(plain, pictures)
    assert_same_training(trained(run, batches), expected, losses=1e-6, gradients=5e-6)
    rounded = [{name: in_16_bits(arrays) for name, arrays in batch.items()} for batch in batches]
    assert_same_training(trained(run, rounded), expected, losses=3e-4, gradients=3e-3)


def in_16_bits(arrays):
    """As tokens of float16 come into a step."""
    return arrays | {name: arrays[name].astype(np.float16).astype(np.float32) for name in TOKENS}


def test_photos_come_in_the_order_of_a_run_without_features(data, three_views):
    run = from_config(config_of(data, features=three_views))
    with_features = assemble.host_batches(run, assemble.open_streams(run), 0)
    plain = dataclasses.replace(run, features=None)
    without = assemble.host_batches(plain, assemble.open_streams(plain), 0)
    for _ in range(3):
        one, other = next(with_features), next(without)
        for name in ("masks", "tags"):
            np.testing.assert_array_equal(one[name]["id"], other[name]["id"])


def test_the_batch_of_a_step_is_a_function_of_seed_and_step(data, three_views):
    run = from_config(config_of(data, features=three_views))
    streams = assemble.open_streams(run)
    whole = assemble.host_batches(run, streams, 0)
    batches = [next(whole) for _ in range(4)]
    late = next(assemble.host_batches(run, streams, 3))
    for name in ("masks", "tags"):
        for key, value in batches[3][name].items():
            np.testing.assert_array_equal(late[name][key], value)
    other = dataclasses.replace(run, seed=run.seed + 1)
    assert not np.array_equal(next(assemble.host_batches(other, streams, 3))["masks"]["id"], late["masks"]["id"])
    # The same photo is not always seen the same way.
    seen = {}
    for batch in batches:
        for photo, patches in zip(batch["masks"]["id"], batch["masks"]["patches"], strict=True):
            seen.setdefault(photo, set()).add(patches.tobytes())
    assert max(map(len, seen.values())) > 1
    assert max(map(len, seen.values())) <= 3


def test_tokens_of_16_bits_are_those_of_32_but_for_their_rounding(data, three_views, one_view):
    wide, narrow = (read(folder) for folder in (one_view, three_views))
    for photo in range(tiny.MASKED):
        (name, one), (other, two) = wide.read(photo, 0), narrow.read(photo, 0)
        assert name == other
        assert two["patches"].dtype == np.float16
        np.testing.assert_allclose(two["patches"].astype(np.float32), one["patches"], rtol=2**-10, atol=1e-6)
        np.testing.assert_array_equal(two["label"], one["label"])


def read(folder, stream="masks"):
    return FeatureRecords(folder / stream, read_facts(folder / stream))


def refused(run):
    with pytest.raises(UserError) as error:
        assemble.open_streams(run)
    return str(error.value)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("model.layer_norm_epsilon", 1e-5, "model.layer_norm_epsilon: 1e-05, was 1e-06"),
        ("streams.masks.crop_size", 24, "streams.masks.crop_size: 24, was 16"),
        ("streams.tags.always_tags", (), "streams.tags.always_tags: [], was ['background']"),
        ("streams.tags.source.split", "val", "streams.tags.source.split: 'val', was 'tagged'"),
        ("streams.masks.classes", ("background", "green", "red"), "the first that differs is 'green', was 'red'"),
        ("vocabulary.aliases", (("rose", "red"),), "streams.masks.aliases: [['rose', 'red']], new"),
        ("optimizer.frozen", common.frozen_but_last(DEPTH, 2), "freezes the first 1: freeze as many"),
        ("optimizer.frozen", "", "freezes no block"),
    ],
)
def test_features_of_something_else_are_refused_by_name(data, three_views, option, value, said):
    config = config_of(data, features=three_views)
    config.update_from_flattened_dict({option: value})
    assert said in refused(from_config(config))


def test_options_that_tokens_do_not_depend_on_may_differ(data, three_views):
    config = config_of(data, features=three_views)
    config.seed, config.streams.masks.batch_size, config.streams.tags.lambda_cls = 5, 4, 0.7
    config.model.update(drop_path=0.1, remat=True, dtype="bfloat16")
    assert len(assemble.open_streams(from_config(config))) == 2


@pytest.mark.slow
def test_features_of_other_weights_are_refused_by_name(data, three_views, one_device, monkeypatch):
    run = from_config(config_of(data, features=three_views))
    params = assemble.fresh_state(run, assemble.mesh_of(run)).params
    digested = []
    with monkeypatch.context() as patch:
        patch.setattr(stored_features, "digest", lambda leaves: digested.append(leaves) or digest(leaves))
        check_weights(run, params)
    assert len(digested) == 1  # of the backbone once, not once for each stream
    changed = jax.tree.map(jnp.copy, params)
    kernel = changed["backbone"]["Transformer"]["encoderblock_1"]["MlpBlock_3"]["Dense_0"]["kernel"]
    changed["backbone"]["Transformer"]["encoderblock_1"]["MlpBlock_3"]["Dense_0"]["kernel"] = kernel.at[0, 0].add(1e-3)
    with pytest.raises(UserError, match="other weights .*encoderblock_1/MlpBlock_3/Dense_0/kernel"):
        check_weights(run, changed)
    # What comes after them may be any.
    last = params["backbone"]["Transformer"]["encoderblock_2"]["LayerNorm_0"]
    last["bias"] = last["bias"] + 1
    check_weights(run, params)


@pytest.mark.slow
def test_an_interrupted_making_goes_on_with_what_is_missing(data, three_views, tmp_path, monkeypatch):
    """In shards of four records, one of them gone and one half written."""
    monkeypatch.setattr(making, "records_of_a_shard", lambda arrays: 4)
    config = config_of(data)
    folder = made(tmp_path / "a", config, views=3)
    shards = sorted((folder / "masks").glob("*.array_record-*"))
    assert len(shards) == -(-3 * tiny.MASKED // 4)
    before = {path: path.read_bytes() for path in shards}
    stamps = {path: path.stat().st_mtime_ns for path in shards}
    shards[2].unlink()
    shards[5].rename(f"{shards[5]}.incomplete")
    run = from_config(config_of(data, features=folder))
    assert "2 of 8 shards are" in refused(run)
    made(folder, config, views=3)
    assert {path: path.read_bytes() for path in shards} == before
    assert sorted((folder / "masks").glob("*.array_record-*")) == shards
    again = {path for path in shards if path.stat().st_mtime_ns != stamps[path]}
    assert again == {shards[2], shards[5]}
    for photo in range(tiny.MASKED):  # the shards are another division of the same records
        for view in range(3):
            np.testing.assert_array_equal(
                read(folder).read(photo, view)[1]["patches"], read(three_views).read(photo, view)[1]["patches"]
            )


def test_a_folder_of_other_features_is_left_alone(data, three_views):
    with pytest.raises(UserError, match=r"holds other features \(.*views: 2, was 3.*give another --out"):
        made(three_views, config_of(data), views=2)


@pytest.mark.parametrize(
    ("frozen", "blocks", "said"),
    [("", None, "freezes no block"), (common.frozen_but_last(DEPTH, 1), 3, "freezes the first 2 of 3: use 2 or less")],
)
def test_blocks_that_learn_have_no_features(data, tmp_path, frozen, blocks, said):
    config = config_of(data)
    config.optimizer.frozen = frozen
    with pytest.raises(UserError, match=said):
        made(tmp_path / "none", config, blocks=blocks)


def test_a_damaged_record_is_a_photo_that_cannot_be_read(data, three_views, tmp_path):
    folder = shutil.copytree(three_views, tmp_path / "damaged")
    (shard,) = (folder / "masks").glob("*.array_record-*")
    content = bytearray(shard.read_bytes())
    content[2000:2400] = bytes(400)  # of the first records; further on are marks without which no file is opened
    shard.write_bytes(content)
    records = read(folder)
    failed = []
    for photo in range(tiny.MASKED):
        for view in range(3):
            try:
                records.read(photo, view)
            except UserError as error:
                failed.append(str(error))
    assert failed
    assert all("cannot be read" in text and "make them anew" in text for text in failed)


def test_a_description_that_is_none_is_refused(data, three_views, tmp_path):
    folder = shutil.copytree(three_views, tmp_path / "odd")
    file = folder / "masks" / "features.json"
    described = json.loads(file.read_text())
    many = {**described, "photos": 10**15, "records_per_shard": 1}  # as many shards do not fit into memory
    for broken in ({**described, "arrays": 3}, {"views": 1}, [1], many, {**described, "records_per_shard": 0}):
        file.write_text(json.dumps(broken))
        assert "does not describe features" in refused(from_config(config_of(data, features=folder)))
    file.unlink()
    assert "make the features" in refused(from_config(config_of(data, features=folder)))
