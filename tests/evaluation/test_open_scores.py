"""Open mIoU by hand and pixel by pixel, and evaluations that ask for it."""

import copy
import json

import numpy as np
import pytest

from larvseg_jax import cli, evaluate
from larvseg_jax.assemble import make_evaluators
from larvseg_jax.commands import evaluate as command
from larvseg_jax.config import Experiment, from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.evaluation.metrics import SegmentationCounts
from larvseg_jax.evaluation.open_scores import OpenCounts
from larvseg_jax.evaluation.path_similarity import PathSimilarity
from larvseg_jax.vocabulary import Vocabulary, hierarchy
from larvseg_jax.vocabulary.catalogue import Catalogue, ClassListsConfig
from larvseg_jax.vocabulary.class_lists import class_list
from tests import tiny
from tests.evaluation.untrained import untrained
from tests.evaluation.wordnet_files import ANIMAL, BICYCLE, CAR, CAT, DOG, ENTITY, KINDS, WOLF

GROUPS = ("base", "novel", "base", "background")


def test_open_scores_of_one_photo_by_hand():
    """Dog, cat, car and OTHER are scored; wolf and bicycle are rivals."""
    similarity = PathSimilarity(KINDS, [(DOG,), (CAT,), (CAR,), (), (WOLF,), (BICYCLE,)])
    label = np.array([[0, 0, 0, 0, 0], [1, 1, 2, 2, -1], [3, 3, 3, 3, -1]], np.int32)
    prediction = np.array([[0, 0, 1, 4, 5], [1, 0, 2, 5, 0], [0, 4, 2, 2, 1]], np.int32)
    counts = OpenCounts.zeros(4).add(prediction, label, similarity)
    # Dog: two right, a cat 1/5, a wolf 1/3, a bicycle 1/6: dog three below entity, it two.
    dog = 2 + 1 / 5 + 1 / 3 + 1 / 6
    np.testing.assert_allclose(counts.alike, [dog, 1 + 1 / 5, 1 + 1 / 5, 0])
    # As dog: a cat's pixel and one of OTHER; as cat: a dog's; as car: two of OTHER.
    np.testing.assert_allclose(counts.unlike, [4 / 5 + 1, 4 / 5, 2, 0])
    assert counts.labelled.tolist() == [5, 2, 2, 4]
    scores = counts.scores(GROUPS)
    iou = [dog / 6.8, 1.2 / 2.8, 1.2 / 4]
    np.testing.assert_allclose(scores.iou[:3], iou)
    assert scores.mean_iou == pytest.approx(np.mean(iou))
    assert scores.base_iou == pytest.approx((iou[0] + iou[2]) / 2)
    assert scores.novel_iou == pytest.approx(iou[1])
    assert scores.pixel_acc == pytest.approx((dog + 2.4) / 9)


def test_without_similarities_it_is_miou_and_photos_add_up():
    """Synsets that have nothing above them: only the same class is like a class."""
    rng = np.random.default_rng(0)
    alone = {f"n{i:08d}": () for i in range(9)}
    names, other = tuple("abcd"), 4
    similarity = PathSimilarity(alone, [(synset,) for synset in alone])
    vocabulary = Vocabulary(names, base=("a", "b"), novel=("c",))
    counts, open_counts = SegmentationCounts.zeros(5), OpenCounts.zeros(5)
    for _ in range(3):
        label = rng.choice([-1, 0, 1, 2, other], (7, 9)).astype(np.int32)
        prediction = rng.choice([0, 1, 2, 5, 6, 8], (7, 9)).astype(np.int32)
        counts = counts.add(np.minimum(prediction, np.int32(other)), label)
        open_counts = open_counts.add(prediction, label, similarity)
    summary = counts.summary((*names, "other"), vocabulary, other=True)
    scores = open_counts.scores(summary.groups)
    np.testing.assert_allclose(scores.iou[:4], summary.iou[:4])  # NaN for d, which is absent
    for name in ("mean_iou", "base_iou", "novel_iou"):
        assert getattr(scores, name) == pytest.approx(getattr(summary, name))


def test_open_scores_against_a_loop_over_pixels():
    rng = np.random.default_rng(1)
    columns = [(DOG,), (CAT,), (CAR,), (BICYCLE,), (WOLF,), (ANIMAL,)]
    similarity = PathSimilarity(KINDS, columns)
    label, prediction = rng.integers(0, 4, (2, 8, 8), dtype=np.int32)
    prediction[:4] = rng.integers(0, 6, (4, 8))
    s = np.array([[by_search(a[0], b[0]) for b in columns] for a in columns])
    hit, surplus, missed = np.zeros((3, 4))
    for t, p in zip(label.flat, prediction.flat, strict=True):
        hit[t] += s[t, p]
        missed[t] += 1 - s[t, p]
        if p < 4:
            surplus[p] += 1 - s[t, p]
    scores = OpenCounts.zeros(4).add(prediction, label, similarity).scores(("base",) * 4)
    np.testing.assert_allclose(scores.iou, hit / (hit + surplus + missed))


def by_search(one, other):
    """1 / (1 + steps), by trying ever longer ways that go up first and then down."""

    def above(synset, steps):
        return {synset} if steps == 0 else {up for at in above(synset, steps - 1) for up in KINDS[at]}

    for steps in range(12):
        if any(above(one, up) & above(other, steps - up) for up in range(steps + 1)):
            return 1 / (1 + steps)
    raise AssertionError


def test_synsets_of_what_competes():
    """ImageNet-S' classes are found in the union by synset; its teddy is COCO-Stuff's, by name."""
    lists = ClassListsConfig(("coco_stuff_171", "imagenet_21k"), share="synset")
    catalogue = Catalogue.of(Vocabulary(), lists, ())

    class Open:
        classes, class_list, rivals = (), "imagenet_s_919", "imagenet_21k"

    label_set, synsets = catalogue.label_set(Open(), evaluation=True), catalogue.synsets(Open())
    assert [name for name in label_set.names if not synsets.get(name)] == ["other"]
    assert synsets["teddy bear"] == ("n04399382",)
    assert synsets[label_set.names[label_set.members["n02123045"]]] == ("n02123045",)  # in both lists, once
    Open.class_list, Open.rivals = "coco_stuff_171", ""
    assert not any(catalogue.synsets(Open()).values())


LISTS = ("imagenet21k_subset_124", "imagenet21k_subset_585")  # scored, rivals


@pytest.fixture
def described(tmp_path):
    """A config in whose evaluation 585 synsets compete with 124; its masks show four of these."""
    folder = tiny.write_data(tmp_path)
    shown = class_list(LISTS[0]).ids[:4]
    (folder / "classes.json").write_text(json.dumps({"names": ("other", *shown), "ignore": 255}))
    config = tiny.get_config()
    config.data_root = str(tmp_path)
    config.vocabulary.update(classes=(), base=(), novel=(), background="")
    config.class_lists.update(lists=LISTS)
    config.streams.masks.update(classes=(), class_list=LISTS[0])
    del config.streams["tags"]
    config.evals.val.update(class_list=LISTS[0], rivals=LISTS[1])
    return config


@pytest.fixture
def run(described, tmp_path, monkeypatch):
    return untrained(described, tmp_path, monkeypatch)


@pytest.fixture
def flat(monkeypatch):
    """A WordNet with all synsets one below entity: any two that differ are two steps apart, so 1/3."""
    synsets = [synset for key in LISTS for synset in class_list(key).ids]
    nouns = copy.copy(hierarchy.wordnet())
    nouns.hypernyms = {ENTITY: (), **dict.fromkeys(synsets, (ENTITY,))}
    monkeypatch.setattr(evaluate, "wordnet", lambda: nouns)


@pytest.mark.slow
def test_an_evaluation_with_wordnet(run, flat, tmp_path, capsys):
    summary = evaluate.evaluate_checkpoint(tmp_path, hierarchy=True)["val"]
    said = capsys.readouterr().out
    assert "open_mIoU" in said
    assert "Open IoU %" in said
    assert "no synset" not in said  # but OTHER's, which is no class
    evaluator = make_evaluators(run.experiment(), make_mesh(8, 1), run.method)["val"]
    evaluator.keep = range(tiny.VALIDATION)
    maps = evaluator(run.params, run.memory).label_maps
    other = len(summary.names) - 1
    alike, unlike, labelled = np.zeros((3, other))
    for i in range(tiny.VALIDATION):
        label = evaluator.source[i]["label"]
        for k in range(other):
            truth, mine = label == k, maps[i] == k
            labelled[k] += truth.sum()
            alike[k] += (truth & mine).sum() + (truth & ~mine).sum() / 3
            unlike[k] += (mine & (label == other)).sum() + (
                mine & ~truth & (label >= 0) & (label != other)
            ).sum() * 2 / 3
    assert (maps[0] == other).any()  # rivals win somewhere
    expected = np.divide(alike, labelled + unlike, out=np.full(other, np.nan), where=labelled + unlike > 0)
    np.testing.assert_allclose(summary.open.iou[:other], expected)
    assert summary.scalars()["open_mIoU"] == pytest.approx(np.nanmean(expected))


@pytest.mark.slow
def test_a_curve_with_wordnet(run, flat, tmp_path):
    """Its last point lets compete what the evaluation does, but does not look at pixels of OTHER."""
    out = tmp_path / "curve.json"
    points = evaluate.evaluate_curve(tmp_path, out, sizes=(60, 124), hierarchy=True)
    plain = evaluate.evaluate_curve(tmp_path, tmp_path / "plain.json", sizes=(60, 124))
    for point, without in zip(points, plain, strict=True):
        summary = point.summary
        assert summary.mean_iou == without.summary.mean_iou
        assert without.summary.open is None
        shown = summary.labelled > 0
        # All pixels that are not right are a third right.
        np.testing.assert_allclose(summary.open.pixel_acc, (1 + 2 * summary.pixel_acc) / 3)
        assert (summary.open.iou[shown] > summary.iou[shown]).all()
    written = json.loads(out.read_text())["points"]
    assert [p["open_mIoU"] for p in written] == [p.summary.open.mean_iou for p in points]
    assert "open_mIoU" not in json.loads((tmp_path / "plain.json").read_text())["points"][0]


def test_synsets_of_a_class_list_go_before_those_guessed_from_names(described, monkeypatch):
    """A crane that is a bird in the list of an evaluation, which its name does not say."""
    run, bird, machine = from_config(described), ("n02012849",), ("n03126707",)
    names = ("crane", "dog")
    monkeypatch.setattr(Experiment, "vocabulary", Vocabulary(names))
    for listed, crane in ({"crane": bird}, bird), ({}, machine):
        monkeypatch.setattr(Catalogue, "synsets", lambda *_, listed=listed: listed)
        assert evaluate._synsets(run, "val", names, ()) == [crane, (DOG,)]


def test_the_command_passes_on_what_is_asked_for(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(command, "check_model", lambda *_: None)
    monkeypatch.setattr(evaluate, "evaluate_checkpoint", lambda *_, **options: given.append(options))
    monkeypatch.setattr(evaluate, "evaluate_curve", lambda *_, pretrained, **options: given.append(options))
    line = [f"--run={tmp_path}", "--hierarchy"]
    cli.run("evaluate", line)
    cli.run("evaluate", [*line, f"--vocabulary_curve={tmp_path / 'curve.json'}"])
    cli.run("evaluate", [line[0], "--novel_offset=-1.5"])
    cli.run("evaluate", [line[0], "--novel_offset=choose"])
    assert [of["hierarchy"] for of in given] == [True, True, False, False]
    assert [of.get("novel_offset") for of in given] == [None, None, -1.5, "choose"]
