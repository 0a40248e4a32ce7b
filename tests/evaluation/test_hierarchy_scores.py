"""larvseg evaluate --hierarchy, against the label maps of the photos."""

import json

import numpy as np
import pytest

from larvseg_jax import evaluate
from larvseg_jax.assemble import make_evaluators
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.vocabulary.hierarchy import wordnet
from tests import tiny
from tests.evaluation.untrained import untrained

NAMES = ("background", "dog", "wolf", "cat", "car")


@pytest.fixture
def run(tmp_path, monkeypatch):
    return run_of(NAMES, tmp_path, monkeypatch)


def run_of(names, tmp_path, monkeypatch):
    """On coloured boxes that are called so."""
    folder = tiny.write_data(tmp_path)
    (folder / "classes.json").write_text(json.dumps({"names": names, "ignore": 255, "background": 0}))
    config = tiny.get_config()
    config.data_root = str(tmp_path)
    config.vocabulary.update(classes=names, base=names[1:4], novel=names[4:])
    config.streams.masks.classes = names[:4]
    del config.streams["tags"]
    return untrained(config, tmp_path, monkeypatch)


def test_coarser_classes_are_those_of_the_label_maps(run, tmp_path, capsys):
    summary = evaluate.evaluate_checkpoint(tmp_path, hierarchy=True)["val"]
    said = capsys.readouterr().out
    assert "val: the tree cut at a depth" in said
    assert "open_mIoU" in said
    evaluator = make_evaluators(run.experiment(), make_mesh(8, 1), run.method)["val"]
    evaluator.keep = range(tiny.VALIDATION)
    maps = evaluator(run.params, run.memory).label_maps
    pairs = [pair for i in maps for pair in zip(evaluator.source[i]["label"].flat, maps[i].flat, strict=True)]
    pairs = [(NAMES[t], NAMES[p]) for t, p in pairs if t >= 0]
    nouns = wordnet()
    for cut in summary.tree.cuts:
        above = {name: nouns.name(way[min(cut.depth, len(way) - 1)]) for name in NAMES[1:]
                 for way in [nouns.path(nouns.senses(name)[0])]} | {"background": "background"}  # fmt: skip
        shown = [(above[t], above[p]) for t, p in pairs]
        iou = []
        for name in set(above.values()) - {"background"}:
            either = sum(name in pair for pair in shown)
            iou += [sum(t == p == name for t, p in shown) / either] if either else []
        assert cut.mean_iou == pytest.approx(np.mean(iou))
        assert cut.pixel_acc == pytest.approx(np.mean([t == p for t, p in shown]))
    assert summary.tree.cuts[-1].mean_iou == pytest.approx(summary.mean_iou)
    assert [len(cut.names) for cut in summary.tree.cuts] == sorted({len(cut.names) for cut in summary.tree.cuts})
    assert evaluate.evaluate_checkpoint(tmp_path)["val"].tree is None


def test_an_evaluation_without_synsets_is_said(tmp_path, monkeypatch, capsys):
    run_of(("background", "xqa", "xqb", "xqc", "xqd"), tmp_path, monkeypatch)
    assert evaluate.evaluate_checkpoint(tmp_path, hierarchy=True)["val"].tree is None
    assert "val: no class has a synset of WordNet, so there are no scores by the hierarchy" in capsys.readouterr().out
