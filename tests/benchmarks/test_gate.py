"""The gate against regress: what is worse, better, new or missing, its exit code, and its table in the docs."""

import json
import math

import pytest

from benchmarks import _ratios, gate
from benchmarks._parts import Outcome
from benchmarks._ratio_table import (
    BEGIN,
    END,
    Figure,
    RatioTable,
    compare,
    lower_of,
    read_table,
    with_table,
    write_table,
)
from larvseg_jax.errors import UserError


def figure(value, tolerance=0.25, part="p"):
    return Figure(part, value, tolerance, "the other one")


def table(**values):
    figures = {name: value if isinstance(value, Figure) else figure(value) for name, value in values.items()}
    return RatioTable("2 cores", {"jax": "1.2", "numpy": "3.4"}, "abc", "2026-11-28", figures)


@pytest.mark.parametrize(
    ("value", "kind"),
    [(0.4, "same"), (0.499, "same"), (0.501, "worse"), (0.321, "same"), (0.319, "better"),
     (math.nan, "worse"), (math.inf, "worse"), (8.0, "worse"), (0.0, "better")],
)  # fmt: skip
def test_a_figure_is_held_against_its_tolerance(value, kind):
    (verdict,) = compare({"a": figure(value)}, table(a=0.4))
    assert (verdict.kind, verdict.name) == (kind, "a")


def test_the_tolerance_is_the_committed_one():
    (verdict,) = compare({"a": figure(0.48, tolerance=0.01)}, table(a=figure(0.4, tolerance=0.3)))
    assert verdict.kind == "same"
    (verdict,) = compare({"a": figure(0.48, tolerance=0.3)}, table(a=figure(0.4, tolerance=0.01)))
    assert verdict.line == "WORSE: a: 0.48 of the other one, 0.4 in the table, 1.20 times that; up to 1.01 is taken"


def test_what_only_one_side_has_is_said():
    found = {"new one": figure(2.0), "kept": figure(1.0)}
    committed = table(kept=1.0, gone=figure(3.0, part="q"), asleep=figure(4.0, part="r"))
    verdicts = {verdict.name: verdict for verdict in compare(found, committed, left_out={"r"})}
    assert {name: verdict.kind for name, verdict in verdicts.items()} == {
        "new one": "new", "kept": "same", "gone": "missing"
    }  # fmt: skip
    assert verdicts["gone"].line == "missing: gone: not measured (3 in the table)"
    assert "not in the table yet" in verdicts["new one"].line


def test_of_two_measurements_the_lower_value_counts():
    first = {"a": figure(2.0), "b": figure(1.0), "c": figure(math.nan), "d": figure(5.0)}
    second = {"a": figure(1.5), "b": figure(1.2), "c": figure(7.0)}
    assert {name: f.value for name, f in lower_of(first, second).items()} == {"a": 1.5, "b": 1.0, "c": 7.0, "d": 5.0}


class Machine:
    """Parts whose figures are given in advance, a list for the first, second, ... time each is measured."""

    def __init__(self, **times):
        self.times, self.asked = times, []

    def __call__(self, part):
        self.asked.append(part)
        values = self.times[part].pop(0)
        if isinstance(values, str):
            return Outcome("failed", None, values, 1.0)
        found = {name: dict(part=part, value=v, tolerance=0.25, baseline="the other one") for name, v in values.items()}
        return Outcome("done", json.loads(json.dumps(found)), "", 1.0)


COMMITTED = table(a=figure(1.0, part="one"), b=figure(1.0, part="one"), c=figure(1.0, part="two"))


def test_what_holds_is_measured_once_and_leaves_with_0(capsys):
    machine = Machine(one=[{"a": 1.1, "b": 0.9}], two=[{"c": 1.0}])
    assert gate.check(["one", "two"], [], COMMITTED, machine) == 0
    assert machine.asked == ["one", "two"]
    assert "3 figures hold, 0 are worse or missing" in capsys.readouterr().out


def test_what_is_worse_is_measured_once_more_and_then_has_a_line(capsys):
    machine = Machine(one=[{"a": 1.5, "b": 1.3}, {"a": 1.4, "b": 1.0}], two=[{"c": 1.0}])
    assert gate.check(["one", "two"], [], COMMITTED, machine) == 1
    assert machine.asked == ["one", "two", "one"]
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if line.startswith("WORSE")] == [
        "WORSE: a: 1.4 of the other one, 1 in the table, 1.40 times that; up to 1.25 is taken"
    ]
    assert "2 figures hold, 1 are worse or missing" in said


def test_noise_that_is_gone_the_second_time_is_no_fault():
    machine = Machine(one=[{"a": 1.5, "b": 1.0}, {"a": 1.1, "b": 1.6}], two=[{"c": 1.0}])
    assert gate.check(["one", "two"], [], COMMITTED, machine) == 0


def test_better_and_new_are_said_and_no_fault(capsys):
    machine = Machine(one=[{"a": 0.5, "b": 1.0, "new one": 9.0}], two=[{"c": 1.0}])
    assert gate.check(["one", "two"], [], COMMITTED, machine) == 0
    said = capsys.readouterr().out
    assert "better: a: 0.5 " in said
    assert "new: new one: 9 " in said
    assert "--update" in said


def test_a_part_that_fails_and_a_figure_that_is_gone_leave_with_1(capsys):
    assert gate.check(["one", "two"], [], COMMITTED, Machine(one=["no memory"], two=[{"c": 1.0}])) == 1
    said = capsys.readouterr().out
    assert "FAILED: one: no memory" in said
    assert "missing" not in said.replace("worse or missing", "")  # once is enough
    assert gate.check(["one", "two"], [], COMMITTED, Machine(one=[{"a": 1.0}], two=[{"c": 1.0}])) == 1
    assert "missing: b: not measured" in capsys.readouterr().out


def test_parts_that_were_not_asked_for_are_not_missing():
    assert gate.check(["two"], ["one"], COMMITTED, Machine(two=[{"c": 1.0}])) == 0


def test_another_machine_is_said(capsys, monkeypatch):
    monkeypatch.setattr(gate.provenance, "processor", lambda: "64 cores")
    gate.check(["two"], ["one"], COMMITTED, Machine(two=[{"c": 1.0}]))
    assert "the table is of 2 cores, this is 64 cores" in capsys.readouterr().out


def test_update_writes_table_and_page_or_nothing(tmp_path, capsys):
    file, page = tmp_path / "ratios.json", tmp_path / "page.md"
    write_table(file, COMMITTED)
    page.write_text(f"# Page\n\n{BEGIN}\nold\n{END}\n\nrest\n")
    before = file.read_text(), page.read_text()
    with pytest.raises(UserError, match=r"nothing was written, because a part failed \(two: no memory\)"):
        gate.update(["one", "two"], Machine(one=[{"a": 1.0}], two=["no memory"]), file, page)
    assert (file.read_text(), page.read_text()) == before
    gate.update(["one", "two"], Machine(one=[{"a": 1.23456}], two=[{"c": 2.0, "d": 3.0}]), file, page)
    written = read_table(file)
    assert {name: f.value for name, f in written.figures.items()} == {"a": 1.235, "c": 2.0, "d": 3.0}
    assert written.commit
    assert len(written.date) == len("2026-11-28")
    assert "| c | 2 | 25% | the other one |" in page.read_text()
    assert "old" not in page.read_text()
    assert page.read_text().endswith("\n\nrest\n")
    assert "no longer in the table: b" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", '{"figures": {"a": 1}}', '{"figures": {"a": {"part": "p"}}}',
     '{"machine": "", "versions": {}, "commit": "", "date": "", "figures": '
     '{"a": {"part": "p", "value": NaN, "tolerance": 1, "baseline": ""}}}'],
)  # fmt: skip
def test_a_damaged_table_is_refused_by_name(tmp_path, text):
    file = tmp_path / "ratios.json"
    with pytest.raises(UserError, match=r"ratios\.json is missing.*--update"):
        read_table(file)
    file.write_text(text)
    with pytest.raises(UserError, match=r"ratios\.json cannot be read"):
        read_table(file)


@pytest.mark.parametrize("page", ["", BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{END}{END}", f"{BEGIN}{BEGIN}{END}{BEGIN}"])
def test_a_page_without_the_two_markers_is_refused(page):
    with pytest.raises(UserError, match="put them where the table is to stand"):
        with_table(page, COMMITTED)


@pytest.mark.parametrize("flags", ["--parts=nothing", "--update --parts=attention"])
def test_wrong_flags_are_answered_before_anything_is_measured(flags):
    with pytest.raises(UserError):
        gate.main(gate.flags(flags.split()).parse())


def test_the_page_shows_the_committed_table():
    committed, page = json.loads(gate.TABLE.read_text()), gate.PAGE.read_text()
    shown = page.partition(BEGIN)[2].partition(END)[0]
    rows = [line.strip("| ").split(" | ") for line in shown.splitlines() if line.startswith("| ")][1:]
    assert [row[0] for row in rows] == list(committed["figures"])
    for (_, value, tolerance, baseline), entry in zip(rows, committed["figures"].values(), strict=True):
        assert float(value) == pytest.approx(entry["value"], rel=5e-3)
        assert int(tolerance.rstrip("%")) == round(100 * entry["tolerance"])
        assert baseline == entry["baseline"]
    for text in (committed["machine"], committed["commit"], committed["date"], f"jax {committed['versions']['jax']}"):
        assert text in shown
    assert with_table(page, read_table(gate.TABLE)) == page  # python -m benchmarks.gate --doc changes nothing


def test_the_committed_table_is_of_committed_code_and_of_parts_that_exist():
    committed = read_table(gate.TABLE)
    assert not committed.commit.endswith("dirty")
    assert {f.part for f in committed.figures.values()} - {_ratios.PYTORCH} == set(_ratios.PARTS)
