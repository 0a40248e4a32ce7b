"""Replaced photos are counted in the steps that are taken, named once, and too many of them stop the run."""

import collections
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import pytest

from data_pipelines.streams import iterate, step_batches
from larvseg_jax.console import console
from larvseg_jax.report.metric_log import read_history
from larvseg_jax.training import history, replaced
from larvseg_jax.training.replaced import EVENT, Replacements, TooManyUnusable, replaced_facts
from tests.data_pipelines.test_replacing import Broken
from tests.data_pipelines.test_streams import photos, stream
from tests.training.test_recorder import TOTAL, loss, recorder_of

STEPS = 12


def streams_of(broken=(3,), count=10):
    source = Broken(photos(count), broken)
    return {"dense": stream(source=source, batch_size=2), "weak": stream("tags", source=photos(7), batch_size=2)}


def batches_of(streams, start=0):
    return iterate(step_batches(streams, seed=0, total_steps=STEPS, replace=True), start, 2)


def expected_rows(streams):
    """Step -> replaced rows of `dense`, from the order of a run without broken photos."""
    broken, streams["dense"].source.broken = streams["dense"].source.broken, set()
    ids = [batch["dense"]["id"] for batch in batches_of(streams)]
    streams["dense"].source.broken = broken
    return {step: sum(int(i[6:]) in broken for i in batch) for step, batch in enumerate(ids, 1)}


def events(workdir):
    return [(e["step"], *e["details"][:2]) for e in history.read(workdir) if e["event"] == EVENT]


@pytest.mark.parametrize("every", [1, 3])
def test_what_is_logged_are_the_rows_of_the_steps_so_far(tmp_path, every):
    streams = streams_of((3, 5))
    rows = expected_rows(streams)
    replacements = Replacements(tmp_path, streams, 0.5, 0)
    batches = replacements.watched(batches_of(streams))
    with recorder_of(tmp_path, every=every, replaced=replacements.counts) as recorder:
        for step in range(1, TOTAL + 1):
            next(batches)
            recorder.begun(step, loss(step))
        recorder.catch_up()
    found = {line["step"]: line["dense/replaced"] for line in read_history(tmp_path) if line["kind"] == "data"}
    due = [step for step in range(1, TOTAL + 1) if step % every == 0 or step == TOTAL]
    counted = {b: sum(rows[s] for s in range(a + 1, b + 1)) for a, b in itertools.pairwise([0, *due])}
    assert found == {step: number for step, number in counted.items() if number}
    assert sum(found.values()) > 1


def test_a_restart_counts_no_row_twice_and_forgets_none(tmp_path):
    streams = streams_of((3, 5))
    rows = expected_rows(streams)
    history.note(tmp_path, "started", 0)
    for start, saved, killed in ((0, 2, 4), (2, 5, 5), (5, TOTAL, TOTAL)):
        replacements = Replacements(tmp_path, streams, 0.5, start)
        batches = replacements.watched(batches_of(streams, start))
        with recorder_of(tmp_path, start=start, every=100, replaced=replacements.counts) as recorder:
            for step in range(start + 1, killed + 1):
                next(batches)
                recorder.begun(step, loss(step))
                if step == saved:
                    recorder.catch_up()
    lines = read_history(tmp_path)
    total = sum(rows[step] for step in range(1, TOTAL + 1))
    assert sum(line.get("dense/replaced", 0) for line in lines) == total
    assert len(events(tmp_path)) == 2
    assert replaced_facts(tmp_path, lines) == {
        "photos replaced in dense": f"{total} times, as 2 cannot be used: "
        + "; ".join(f"images/{number}.jpg: no readable picture" for _, _, number in events(tmp_path))
    }


def test_a_photo_is_named_once_in_the_terminal_and_in_the_history(tmp_path):
    streams = streams_of((3,))
    with console.capture() as printed:
        for _ in Replacements(tmp_path, streams, 0.01, 0).watched(batches_of(streams)):
            pass
    first = next(step for step, rows in expected_rows(streams).items() if rows)
    assert sum(expected_rows(streams).values()) > 1
    assert printed.get().splitlines() == ["dense: images/3.jpg: no readable picture: replaced by other photos"]
    assert events(tmp_path) == [(first, "dense", "3")]
    with console.capture() as printed:
        for _ in Replacements(tmp_path, streams, 0.01, first).watched(batches_of(streams, first)):
            pass
    assert printed.get().splitlines() == ["  dense: 1 of the photos that were replaced still cannot be used"]
    assert len(events(tmp_path)) == 1


def met_in_order(streams):
    """(step, number) of the broken photos as the batches meet them, those tried as replacements too."""
    seen = {}
    for step, batch in enumerate(batches_of(streams), 1):
        for number, _ in itertools.chain(*batch["dense"]["unusable"]):
            seen.setdefault(number, step)
    return sorted((step, number) for number, step in seen.items())


def take_all(batches, taken):
    for batch in batches:
        taken.append(batch)  # what came before an error counts


@pytest.mark.parametrize(("share", "allowed"), [(0.01, 1), (0.19, 1), (0.2, 2), (0.3, 3), (1.0, 4)])
def test_more_than_a_share_of_the_photos_stops_the_run(tmp_path, share, allowed):
    """One may always fail, however few there are."""
    streams = streams_of((1, 3, 5, 7))
    order = met_in_order(streams)
    assert len(order) == 4
    taken: list = []
    replacements = Replacements(tmp_path, streams, share, 0)
    if allowed == 4:
        assert sum(1 for _ in replacements.watched(batches_of(streams))) == STEPS
        return
    with pytest.raises(TooManyUnusable) as stopped:
        take_all(replacements.watched(batches_of(streams)), taken)
    assert len(taken) == order[allowed][0] - 1
    number = sum(step <= len(taken) + 1 for step, _ in order)
    assert str(stopped.value).startswith(f"stream 'dense': {number} of its 10 photos cannot be used (images/")
    assert str(stopped.value).endswith(
        f"), more than data.most_replaced={share}: mend them, or raise data.most_replaced"
    )
    assert "\n" not in str(stopped.value)


def test_after_too_many_the_run_goes_on_when_they_are_mended_and_not_before(tmp_path):
    streams = streams_of((1, 3, 5, 7))
    (_, one), (step, other), *_ = met_in_order(streams)
    history.note(tmp_path, "started", 0)
    for start in (0, step - 1):  # with what is saved
        with pytest.raises(TooManyUnusable):
            collections.deque(Replacements(tmp_path, streams, 0.1, start).watched(batches_of(streams, start)), 0)
    with pytest.raises(TooManyUnusable):  # met in steps that are done
        next(Replacements(tmp_path, streams, 0.1, step).watched(batches_of(streams, step)))
    streams["dense"].source.broken = {other}
    rest = Replacements(tmp_path, streams, 0.1, step - 1).watched(batches_of(streams, step - 1))
    assert sum(1 for _ in rest) == STEPS - step + 1
    assert one in {int(number) for _, _, number in events(tmp_path)}


def two_processes(monkeypatch, work):
    """work(0) and work(1) in two threads that take each other for processes; what they return."""
    meeting, given, own = threading.Barrier(2, timeout=60), {}, threading.local()

    def from_all(name, text):
        given[own.process] = text
        meeting.wait()
        found = [given[0], given[1]]
        meeting.wait()
        return found

    def run(process):
        own.process = process
        return work(process)

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(replaced, "from_all", from_all)
    monkeypatch.setattr(history, "is_first_process", lambda: own.process == 0)
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, range(2)))


@pytest.mark.parametrize("share", [0.5, 0.19])
def test_several_processes_count_what_all_of_them_met_and_stop_together(tmp_path, monkeypatch, share):
    streams = streams_of((1, 3, 5))
    history.note(tmp_path, "started", 0)

    def steps(process):
        """Rows counted at every second step, and the step before which it stopped."""
        dataset = step_batches(streams, seed=0, total_steps=STEPS, replace=True, process_index=process, process_count=2)
        replacements, counted = Replacements(tmp_path, streams, share, 0), {}
        batches = replacements.watched(iterate(dataset, 0, 2))
        for step in range(1, STEPS + 1):
            try:
                next(batches)
            except TooManyUnusable as error:
                return counted, step, str(error)
            if step % 2 == 0:
                counted[step] = replacements.counts(step).get("dense/replaced", 0)
        return counted, STEPS + 1, ""

    one, other = two_processes(monkeypatch, steps)
    assert one == other
    counted, stopped, message = one
    monkeypatch.undo()
    rows, order = expected_rows(streams), met_in_order(streams)
    assert counted == {step: rows[step - 1] + rows[step] for step in counted}
    second = order[1][0]  # the step that met one too many: said at the next step that is logged
    assert stopped == (STEPS + 1 if share == 0.5 else second + second % 2 + 1)
    assert ("photos cannot be used" in message) == (share == 0.19)
    seen = [(step, "dense", str(number)) for step, number in order if step < stopped]
    assert sorted(events(tmp_path)) == sorted(seen)


def test_a_history_that_is_spoilt_or_of_other_data_is_no_hindrance(tmp_path):
    for details in (
        ["dense"],
        ["dense", "x", "y"],
        ["dense", "99", "gone"],
        ["other", "1", "gone"],
        ["dense", "2", "-"],
    ):
        history.note(tmp_path, EVENT, 1, details)
    streams = streams_of((3,))
    assert sum(1 for _ in Replacements(tmp_path, streams, 0.1, 1).watched(batches_of(streams, 1))) == STEPS - 1


def test_without_replaced_photos_the_report_says_nothing(tmp_path):
    assert replaced_facts(tmp_path, [{"kind": "train", "step": 1, "loss": 2.0}]) == {}
