"""Runs side by side on one page: scores, curves, classes, and the options in which they differ."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from larvseg_jax import report
from larvseg_jax.console import printable
from larvseg_jax.disk import write_text
from larvseg_jax.errors import UserError
from larvseg_jax.options import flat, short
from larvseg_jax.report.curves import GROUP_COLOURS, finish_axes, plain_text
from larvseg_jax.report.html import data_url, templates
from larvseg_jax.report.metric_log import read_history
from larvseg_jax.report.scores import read_scores
from larvseg_jax.training.history import Origin, origin

_CURVES = {"mIoU": "all classes", "mIoU_base": "base", "mIoU_novel": "novel", "mIoU_base_alone": "base alone"}
_ABSENT = "–"
_LEGEND = 24  # characters


@dataclasses.dataclass(frozen=True)
class Run:
    """What a page says of one run.

    Attributes:
      title: its name; where several have that name, its folder; where folders are called alike, too, their paths.
      step: of its scores.
      evals: `scores.scores_of`, by evaluation.
      history: lines of metrics.jsonl.
      settings: its options, nested.
      origin: of which code and on what it was trained.
    """

    title: str
    step: int
    evals: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any]
    origin: Origin


def compare(folders: Sequence[Path], out: Path) -> Path:
    """Writes the page and returns its path.

    Raises:
      UserError: fewer than two runs, one of them without scores or config.json, or no evaluation of the same name in
        all, or the page cannot be written.
    """
    runs = _read(folders)
    shared = [name for name in runs[0].evals if all(name in run.evals for run in runs)]
    if not shared:
        raise UserError("these runs have no evaluation of the same name, so there is nothing to compare")
    page = (
        templates(Path(report.__file__).parent)
        .get_template("compare.html.j2")
        .render(
            runs=[
                dict(
                    title=run.title,
                    step=run.step,
                    commits=", ".join(run.origin.commits),
                    machines=", ".join(run.origin.machines),
                )
                for run in runs
            ],
            evaluations=[_evaluation(name, runs) for name in shared],
            options=_options(runs),
            group_colours=GROUP_COLOURS,
        )
    )
    write_text(out, page, "give another --out")
    return out


def _read(folders: Sequence[Path]) -> list[Run]:
    if len(set(folders)) < 2:
        raise UserError("there are not two runs: give --compare for each, --compare=runs/a --compare=runs/b")
    settings = [_settings(folder) for folder in folders]
    names = [str(of.get("name", folder.name)) for of, folder in zip(settings, folders, strict=True)]
    titles = next(
        (of for of in (names, [folder.name for folder in folders]) if len(set(of)) == len(of)), [*map(str, folders)]
    )
    return [
        Run(printable(title), scores["step"], scores["evals"], read_history(folder), of, origin(folder))
        for title, scores, of, folder in zip(titles, map(read_scores, folders), settings, folders, strict=True)
    ]


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give the folder of a run") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}): the training's command writes it anew") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds a {type(found).__name__}: the training's command writes it anew")
    return found


def _evaluation(name: str, runs: Sequence[Run]) -> dict[str, Any]:
    """The tables of one evaluation."""
    of_runs = [run.evals[name] for run in runs]
    means = dict.fromkeys(score for of in of_runs for score in of["means"])
    classes = dict.fromkeys(of_class for of in of_runs for of_class in of["classes"])
    rows = []
    for of_class in classes:
        found = [of["classes"].get(of_class, {}) for of in of_runs]
        first = next(one for one in found if one)
        cells = _cells([one.get("IoU") for one in found])
        if any(cell["value"] is not None for cell in cells):
            rows.append(dict(name=of_class, group=first["group"], photos=first.get("photos"), cells=cells))
    rows.sort(key=lambda row: -max(abs(cell["difference"] or 0.0) for cell in row["cells"]))
    return dict(
        name=name,
        means=[dict(name=score, cells=_cells([of["means"].get(score) for of in of_runs])) for score in means],
        classes=rows,
        curves=_curves(name, runs),
    )


def _cells(values: Sequence[float | None]) -> list[dict[str, float | None]]:
    """Values, and how far each is from the first."""
    first = values[0]
    return [
        dict(value=value, difference=None if place == 0 or None in (value, first) else value - first)  # type: ignore[operator]
        for place, value in enumerate(values)
    ]


def _curves(name: str, runs: Sequence[Run]) -> list[tuple[str, str]]:
    """(caption, picture) of each score over steps, a line a run."""
    drawn = []
    for score, caption in _CURVES.items():
        figure = Figure(figsize=(4.6, 3.2), layout="constrained")
        axes = figure.subplots()
        for run in runs:
            lines = [x for x in run.history if x["kind"] == "eval" and x.get("name") == name and score in x]
            points = [(x["step"], 100 * x[score]) for x in lines if x[score] == x[score]]
            if points:
                axes.plot(*zip(*points, strict=True), "o-", markersize=3, label=_brief(run.title))
        if axes.lines:
            axes.set_ylim(bottom=0)
            finish_axes(axes, "IoU, %")
            png = io.BytesIO()
            figure.savefig(png, format="png", dpi=160)
            drawn.append((caption, data_url("png", png.getvalue())))
    return drawn


def _brief(title: str) -> str:
    """The end of a long name, for a legend."""
    return plain_text(title if len(title) <= _LEGEND else f"…{title[-_LEGEND:]}")


def _options(runs: Sequence[Run]) -> dict[str, Any]:
    """How many options there are, and those in which the runs differ."""
    settings = [flat(run.settings) for run in runs]
    names = dict.fromkeys(name for of in settings for name in of)
    shown = {name: [short(of[name]) if name in of else _ABSENT for of in settings] for name in names}
    return dict(all=len(names), different={name: values for name, values in shown.items() if len(set(values)) > 1})
