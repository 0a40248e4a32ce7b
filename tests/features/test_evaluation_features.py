"""An evaluation of cached features is that of the photos, and never that of other photos or options."""

import dataclasses

import jax
import numpy as np
import pytest

from data_pipelines.feature_files import FeatureRecords, read_facts
from larvseg_jax import assemble
from larvseg_jax.config import from_config
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.windows import Windows
from larvseg_jax.stored_features import check_weights
from tests import tiny
from tests.features.made import config_of, made

FROM_FEATURES = "evaluation val: from features"


def evaluators_of(run, mesh, method=None):
    """As a training has them."""
    evaluators = assemble.make_evaluators(run, mesh, method)
    assemble.begin_at_features(run, evaluators)
    return evaluators


def evaluated(run):
    """The label maps of all photos, and the scores; the block that learns is large enough for patches to differ."""
    mesh = assemble.mesh_of(run)
    method = assemble.make_method(run, mesh)
    state = assemble.fresh_state(run, mesh, method)
    blocks = state.params["backbone"]["Transformer"]
    blocks["encoderblock_2"] = jax.tree.map(lambda x: 10 * x, blocks["encoderblock_2"])
    evaluator = evaluators_of(run, mesh, method)["val"]
    evaluator.keep = range(evaluator.photos)
    return evaluator(state.params, state.memory)


def no_picture(*_):
    raise AssertionError("a photo was cut into windows")


@pytest.fixture
def photos_are_not_cut(monkeypatch):
    """Whatever begins with the pictures of windows fails."""
    return lambda: monkeypatch.setattr(Windows, "cut", no_picture)


@pytest.mark.slow
@pytest.mark.parametrize("window", [16, 12])
def test_label_maps_are_those_of_the_photos(data, one_view, one_device, capsys, tmp_path, photos_are_not_cut, window):
    config = config_of(data)
    config.evals.val.update(window=window, stride=8)
    features = one_view if window == 16 else made(tmp_path / "features", config, views=1, dtype="float32")
    run = from_config(config)
    expected = evaluated(run)
    assert FROM_FEATURES not in capsys.readouterr().out
    photos_are_not_cut()
    summary, label_maps, _ = evaluated(dataclasses.replace(run, features=features))
    assert FROM_FEATURES in capsys.readouterr().out
    assert label_maps.keys() == expected.label_maps.keys() == set(range(tiny.VALIDATION))
    for index, labels in expected.label_maps.items():
        assert np.mean(label_maps[index] == labels) > 0.999
    assert len(np.unique(np.concatenate([x.ravel() for x in expected.label_maps.values()]))) > 2
    np.testing.assert_allclose(summary.iou, expected.summary.iou, atol=2e-3)


@pytest.mark.slow
def test_the_search_among_many_classes_begins_with_them_too(
    data, one_view, one_device, monkeypatch, photos_are_not_cut
):
    run = from_config(config_of(data))
    expected = evaluated(run)
    monkeypatch.setattr("larvseg_jax.evaluation.evaluator.SEARCHED_FROM", 2)
    photos_are_not_cut()
    _, label_maps, _ = evaluated(dataclasses.replace(run, features=one_view))
    for index, labels in expected.label_maps.items():
        assert np.mean(label_maps[index] == labels) > 0.999


def test_a_record_has_every_window_of_its_photo(one_view, data):
    folder = one_view / "evals.val"
    records = FeatureRecords(folder, read_facts(folder))
    assert len(records) == tiny.VALIDATION
    name, windows = records.windows(1)
    assert name == f"p{tiny.MASKED + tiny.TAGGED + 1:02d}"
    # 32 x 36 pixels become 16 x 18: two windows side by side.
    assert [{k: x.shape for k, x in window.items()} for window in windows] == [
        {"leading": (1, 16), "patches": (4, 4, 16)}
    ] * 2
    assert not np.array_equal(windows[0]["patches"], windows[1]["patches"])


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("stride", 16, "evals.stride: 16, was 8"),
        ("scale", (80, 20), r"evals.scale: [80, 20], was [64, 16]"),
        ("source.split", "train", "evals.source.split: 'train', was 'val'"),
    ],
)
def test_with_other_options_it_looks_at_the_photos_and_says_so(data, one_view, one_device, capsys, option, value, said):
    config = config_of(data, features=one_view)
    config.evals.val.update_from_flattened_dict({option: value})
    run = from_config(config)
    evaluators = evaluators_of(run, assemble.mesh_of(run))
    assert evaluators["val"].stored is None
    printed = " ".join(capsys.readouterr().out.split())
    assert "evaluation val: from photos, since" in printed
    assert said in printed


def test_features_of_some_photos_do_for_these(data, tmp_path, one_device, capsys):
    config = config_of(data)
    config.evals.val.limit = 2
    config.features = str(made(tmp_path / "features", config, views=1))
    for limit, there in ((1, True), (2, True), (3, False), (0, False)):
        config.evals.val.limit = limit
        run = from_config(config)
        evaluators = evaluators_of(run, assemble.mesh_of(run))
        assert (evaluators["val"].stored is not None) == there
    assert "it has 4 photos, was 2" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_photos_in_another_order_are_refused(data, one_view, one_device):
    run = from_config(config_of(data, features=one_view))
    mesh = assemble.mesh_of(run)
    method = assemble.make_method(run, mesh)
    state = assemble.fresh_state(run, mesh, method)
    evaluator = evaluators_of(run, mesh, method)["val"]
    examples = [evaluator.source[i] for i in (1, 0, 2, 3)]
    evaluator.source = examples
    with pytest.raises(UserError, match="photo 0 is 'p19', and the features of the evaluation have 'p18' in its place"):
        evaluator(state.params, state.memory)


@pytest.mark.slow
def test_windows_of_other_weights_are_refused(data, one_view, one_device, tmp_path):
    """Their streams' features are of the right ones."""
    run = from_config(config_of(data, features=one_view))
    params = assemble.fresh_state(run, assemble.mesh_of(run)).params
    check_weights(run, params)
    folder = tmp_path / "features"
    folder.mkdir()
    for part in one_view.iterdir():
        if part.is_dir():
            (folder / part.name).symlink_to(part)
    facts = read_facts(one_view / "evals.val")
    other = dataclasses.replace(facts, weights={path: number ^ 1 for path, number in facts.weights.items()})
    (folder / "evals.val").unlink()
    (folder / "evals.val").mkdir()
    other.write(folder / "evals.val")
    with pytest.raises(UserError, match=r"evals.val holds features of other weights"):
        check_weights(dataclasses.replace(run, features=folder), params)
