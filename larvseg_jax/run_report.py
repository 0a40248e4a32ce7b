"""What is said of a run: warnings on the way, and in the end a report of scores, photos, log and facts (report.html).

The scores are written as JSON besides (scores.json).
"""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from jax.sharding import Mesh

from data_pipelines.sources import open_source
from larvseg_jax.config import Experiment
from larvseg_jax.console import console
from larvseg_jax.devices.processes import is_first_process
from larvseg_jax.disk import write_text
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.evaluator import Evaluation, Evaluator
from larvseg_jax.evaluation.metrics import Summary
from larvseg_jax.methods.method import Method
from larvseg_jax.report import attention
from larvseg_jax.report.cards import GalleryItem
from larvseg_jax.report.gallery import make_gallery, make_tagged_gallery, photos_by_score, tagged_photos
from larvseg_jax.report.metric_log import read_history
from larvseg_jax.report.report import EvaluationReport, write_report
from larvseg_jax.report.scores import FILE_NAME, scores_of
from larvseg_jax.report.symptoms import Training, symptoms
from larvseg_jax.training.frozen import describe_parameters
from larvseg_jax.training.history import note
from larvseg_jax.training.replaced import replaced_facts
from larvseg_jax.training.state import TrainState

OF_EACH_SCORE = 2  # photos: best, middling, worst


def command() -> str:
    """What was typed to start this program."""
    return shlex.join(["python", *sys.argv])


def warn(workdir: Path, step: int, total: int, summaries: Mapping[str, Summary]) -> None:
    """A line for everything that evaluations of a step, by their names, and the log show to be wrong."""
    if not summaries or not is_first_process():
        return
    history = read_history(workdir)
    for name, summary in summaries.items():
        found = symptoms(summary, Training(name, step, total, history))
        for text in found:
            console.print(f"warning: {text}")
        if found:
            note(workdir, "warning", step, found, evaluation=name)


def report_run(
    run: Experiment,
    method: Method,
    mesh: Mesh,
    state: TrainState,
    evaluators: Mapping[str, Evaluator],
    evaluations: Mapping[str, Evaluation],
    timings: Mapping[str, float],
    pictures: Mapping[str, int],
) -> Path:
    """Writes report.html into the run's folder and returns its path; all processes compute, the first one writes.

    `pictures`: how many each stream has.
    """
    history, step = read_history(run.workdir), int(state.step)
    parts = []
    for name, evaluation in evaluations.items():
        summary, galleries = evaluation.summary, _galleries(run, method, mesh, state, evaluators[name], evaluation)
        with_truth = [item for items in galleries.values() for item in items]
        parts.append(
            EvaluationReport(
                name,
                summary,
                {title: items for title, items in galleries.items() if items},
                symptoms(summary, Training(name, step, run.total_steps, history)),
                attention.by_class(with_truth, summary.names, run.vocabulary.novel),
            )
        )
    if not is_first_process():
        return run.workdir
    scores = {
        name: scores_of(evaluation.summary) | {"novel_offset": evaluation.novel_offset}
        for name, evaluation in evaluations.items()
    }
    write_text(run.workdir / FILE_NAME, json.dumps({"step": step, "evals": scores}, indent=1) + "\n")
    seconds = round(sum(timings.values()))
    return write_report(
        run.workdir,
        title=run.name,
        evaluations=parts,
        history=history,
        facts={
            "command": command(),
            "steps": f"{step} of {run.total_steps}",
            "took": f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d} since the last start",
            "network": describe_parameters(run.optimizer.frozen, state.params),
            "learns from": "; ".join(
                f"{name}: {pictures[name]:,} pictures, {stream.batch_size} a step"
                for name, stream in run.streams.items()
            ),
            "classes": f"{len(run.vocabulary.base):,} base, {len(run.vocabulary.novel):,} novel",
            "seed": str(run.seed),
            **replaced_facts(run.workdir, history),
        },
        config=run.settings,
        timings=timings,
    )


def _galleries(
    run: Experiment, method: Method, mesh: Mesh, state: TrainState, evaluator: Evaluator, evaluation: Evaluation
) -> dict[str, list[GalleryItem]]:
    """Photos of an evaluation, novel classes first; its best, middling and worst; tagged photos of novel classes."""
    of_model = method, mesh, state.params, state.memory, evaluator
    first = make_gallery(*of_model, evaluation.label_maps, run.vocabulary)
    galleries = {"Photos, those with novel classes first": first}
    if not run.gallery:
        return galleries
    chosen = photos_by_score(evaluation.summary.photo_iou, OF_EACH_SCORE)
    for name, numbers in chosen.items():
        maps = evaluator.predict(state.params, state.memory, [evaluator.source[i]["image"] for i in numbers])
        galleries[f"The {name}, by the mean IoU of what a photo shows"] = make_gallery(
            *of_model, dict(zip(numbers, maps, strict=True)), run.vocabulary
        )
    for name, stream in run.streams.items():
        if stream.view.reads != "tags" or not run.vocabulary.novel:
            continue
        label_set = run.catalogue.label_set(stream)
        novel = {column for column, of in enumerate(label_set.names) if of in run.vocabulary.novel}
        with contextlib.suppress(UserError):  # the photos may be gone: of a run on stored features nobody needs them
            source = open_source(stream.source, run.data_root, label_set, "tags", run.max_megapixels)
            numbers = tagged_photos(source, novel, run.gallery)
            items = make_tagged_gallery(*of_model, source, label_set, numbers, run.vocabulary)
            galleries[f"Tagged photos of novel classes, which it learnt from ({name})"] = items
    return galleries
