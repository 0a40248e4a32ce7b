"""Evaluation of a checkpoint on its own, without training."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import ml_collections
import numpy as np
from rich.table import Table

from data_pipelines.sources import open_source
from larvseg_jax import assemble
from larvseg_jax.config import Experiment, from_config
from larvseg_jax.console import console, printable, stage
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.devices.processes import is_first_process
from larvseg_jax.disk import write_bytes, write_text
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.evaluator import Evaluator
from larvseg_jax.evaluation.metrics import Summary
from larvseg_jax.evaluation.path_similarity import PathSimilarity
from larvseg_jax.evaluation.tree_scores import TreeCounts
from larvseg_jax.evaluation.vocabulary_curve import Point, nested_label_sets, vocabulary_curve
from larvseg_jax.provenance import versions
from larvseg_jax.report.curves import draw_vocabularies
from larvseg_jax.trained import load_trained
from larvseg_jax.training.agreement import check_same_everywhere
from larvseg_jax.vocabulary.choice import Names
from larvseg_jax.vocabulary.hierarchy import wordnet
from larvseg_jax.vocabulary.levels import ClassTree

CURVE = (150, 300, 500, 919, 2_000, 5_000, 10_000)
"""How many classes compete at the points of a curve, besides all there are."""


def evaluate_checkpoint(
    path: Path,
    step: int | None = None,
    data_root: str | None = None,
    config: ml_collections.ConfigDict | None = None,
    pretrained: Path | None = None,
    *,
    hierarchy: bool = False,
    novel_offset: float | Literal["choose"] | None = None,
) -> dict[str, Summary]:
    """Scores a checkpoint of a run and prints the table of its classes, for every evaluation of the config.

    Args:
      path: folder of the run or of a checkpoint, or an exported file.
      step: which checkpoint; the newest by default.
      data_root: where the data is, if not where the config says.
      config: how to evaluate, if not as in training; must have the same classes in the same order.
      pretrained: the weights that an exported file leaves out (`trained.load_trained`).
      hierarchy: score by the hierarchy of the classes in WordNet, too (evaluation/open_scores.py, tree_scores.py).
      novel_offset: added to the scores of novel classes; "choose" says and takes what goes with the photos' base
        masks (evaluation/novel_offset.py); by default what the config says.
    """
    mesh = make_mesh(data=-1, model=1)  # not the training's: this may be another machine
    with stage("checkpoint"):
        trained = load_trained(path, step, mesh=mesh, pretrained=pretrained, **_asked(config))
        run = trained.experiment(config, data_root)
        console.print(f"  step {trained.step} of {path}")
    kept = {name: value for name, value in run.settings.items() if name != "data_root"}  # may differ between hosts
    check_same_everywhere("config", {**kept, "step": trained.step, "versions": versions()})
    if novel_offset is not None:
        run = _with_novel_offset(run, novel_offset)
    summaries = {}
    evaluators = assemble.make_evaluators(run, mesh, trained.method)
    if hierarchy:
        _use_hierarchy(run, evaluators, trained.class_lists)
    for name, evaluator in evaluators.items():
        evaluation = evaluator(trained.params, trained.memory)
        summaries[name] = summary = evaluation.summary
        console.print(class_table(summary, "per class" if len(run.evals) == 1 else name))
        console.print(evaluation.text())
        if evaluation.novel_offset is not None:
            chosen = f"{evaluation.novel_offset:.2f}"
            console.print(f"{name}: novel_offset {chosen} chosen; --config.evals.{name}.novel_offset={chosen} keeps it")
        if summary.tree:
            console.print(tree_table(summary, name))
            console.print(f"mistakes between classes with synsets: {summary.tree.steps:.2f} steps on average")
        if evaluator.similarity and (without := evaluator.similarity.without - bool(evaluator.label_set.rivals)):
            console.print(
                f"{without:,} classes have no synset in WordNet: open scores take them for like no other class"
            )
    return summaries


def _asked(config: ml_collections.ConfigDict | None) -> dict[str, Any]:
    """What a config says to `load_trained`: how to score, and the classes of a file that has none (a CLIP)."""
    if config is None:
        return {}
    run = from_config(config)
    return {"classes": run.vocabulary.classes, "options": run.settings["method"]}


def _with_novel_offset(run: Experiment, offset: float | Literal["choose"]) -> Experiment:
    """The run whose evaluations add the offset, or choose one each."""
    number = 0.0 if offset == "choose" else offset
    evals = {
        name: dataclasses.replace(config, choose_novel_offset=offset == "choose", novel_offset=number)
        for name, config in run.evals.items()
    }
    return dataclasses.replace(run, evals=evals)


def _use_hierarchy(run: Experiment, evaluators: Mapping[str, Evaluator], lists: Sequence[str]) -> None:
    """Lets evaluations score by WordNet; those of which no class has a synset do not."""
    for name, evaluator in evaluators.items():
        names, synsets = evaluator.label_set.names, _synsets(run, name, evaluator.label_set.names, lists)
        if synsets is not None:
            evaluator.similarity = PathSimilarity(wordnet().hypernyms, synsets)
            evaluator.tree = TreeCounts.zeros(ClassTree.of(names, synsets, wordnet()), evaluator.similarity)


def _synsets(
    run: Experiment, evaluation: str, names: Sequence[str], lists: Sequence[str]
) -> list[tuple[str, ...]] | None:
    """The synsets of classes: those of the evaluation's class lists, else guesses; None, which is said, without any."""
    listed, guessed = run.catalogue.synsets(run.evals[evaluation]), Names(run.vocabulary, lists).synsets
    found = [listed.get(name) or guessed.get(name, ()) for name in names]
    if any(found):
        return found
    console.print(f"{evaluation}: no class has a synset of WordNet, so there are no scores by the hierarchy")
    return None


def evaluate_curve(
    path: Path,
    out: Path,
    step: int | None = None,
    data_root: str | None = None,
    config: ml_collections.ConfigDict | None = None,
    sizes: Sequence[int] = CURVE,
    seed: int = 0,
    pretrained: Path | None = None,
    *,
    hierarchy: bool = False,
) -> list[Point]:
    """Scores a checkpoint over nested vocabularies on the photos of its evaluation with rivals.

    Writes `out` (JSON: one entry per vocabulary) and beside it the plot, a PNG of the same name.

    Args:
      path, step, data_root, config, pretrained: as in `evaluate_checkpoint`.
      out: the JSON file.
      sizes: how many classes compete; all there are come last anyway.
      seed: of the drawing of classes (`nested_label_sets`).
      hierarchy: Open mIoU, too (evaluation/open_scores.py).

    Raises:
      UserError: no evaluation has rivals.
    """
    mesh = make_mesh(data=-1, model=1)
    with stage("checkpoint"):
        trained = load_trained(path, step, mesh=mesh, pretrained=pretrained, **_asked(config))
        run = trained.experiment(config, data_root)
    name = next((name for name, found in run.evals.items() if found.rivals), None)
    if name is None:
        raise UserError(f"{path}: no evaluation has rivals, of which a vocabulary could grow: give one by --config")
    evaluation = run.evals[name]
    whole = run.catalogue.label_set(evaluation, evaluation=True)
    source = open_source(evaluation.source, run.data_root, whole, "masks", run.max_megapixels)
    nested = nested_label_sets(whole, (*sizes, len(whole)), seed)
    found = _synsets(run, name, whole.names, trained.class_lists) if hierarchy else None
    alike = None
    if found is not None:
        of_name = dict(zip(whole.names, found, strict=True))
        synsets = [[of_name.get(of, ()) for of in part.label_set.names] for part in nested]
        alike = [PathSimilarity(wordnet().hypernyms, of_part) for of_part in synsets]
    points = vocabulary_curve(
        trained.method, trained.params, trained.memory, nested, source, run.vocabulary, evaluation, mesh, alike
    )
    facts = dict(
        run=str(path), step=trained.step, evaluation=name, photos=len(source), limit=evaluation.limit, seed=seed
    )
    scores = [dict(classes=p.classes, scored=p.scored, **p.summary.scalars()) for p in points]
    if is_first_process():
        plain = [{key: None if math.isnan(value) else value for key, value in score.items()} for score in scores]
        write_text(out, json.dumps({**facts, "versions": versions(), "points": plain}, indent=1))
        write_bytes(out.with_suffix(".png"), draw_vocabularies(points))
    columns = {"mIoU": "mIoU %", "mIoU_base": "base %", "mIoU_novel": "novel %", "aAcc": "pixels right %"}
    columns |= {"open_mIoU": "Open mIoU %"} if alike else {}
    table = Table("classes", "scored", *columns.values(), title=name)
    for p, score in zip(points, scores, strict=True):
        shown = [f"{100 * score[key]:.2f}" for key in columns]
        table.add_row(f"{p.classes:,}", f"{p.scored:,}", *shown)
    console.print(table)
    return points


def class_table(summary: Summary, title: str) -> Table:
    """IoU and accuracy of every class that was labelled or predicted, best first."""
    columns = {"IoU %": summary.iou, "accuracy %": summary.acc}
    columns |= {"Open IoU %": summary.open.iou} if summary.open else {}
    table = Table("class", "group", *columns, "pixels", title=title)
    for i in np.argsort(-np.nan_to_num(summary.iou, nan=-1.0), kind="stable"):
        if not np.isnan(summary.iou[i]):
            scores = [f"{100 * x[i]:.2f}" for x in columns.values()]
            table.add_row(printable(summary.names[i]), summary.groups[i], *scores, f"{summary.labelled[i]:,}")
    return table


def tree_table(summary: Summary, title: str) -> Table:
    """The scores of the classes that remain at each depth, the whole tree last."""
    assert summary.tree is not None
    table = Table("depth", "classes", "mIoU %", "pixels right %", title=f"{title}: the tree cut at a depth")
    for cut in summary.tree.cuts:
        table.add_row(str(cut.depth), f"{len(cut.names):,}", f"{100 * cut.mean_iou:.2f}", f"{100 * cut.pixel_acc:.2f}")
    return table
