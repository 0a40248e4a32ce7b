"""What happened to a run, as it is written down and read again."""

from larvseg_jax.training import history


def test_events_come_back_with_their_facts_and_spoilt_lines_are_passed_over(tmp_path):
    history.note(tmp_path, "started", 0, ["from scratch"], commit="abc", devices="1 × x")
    with (tmp_path / history.FILE_NAME).open("a") as file:
        file.write('{"time": "half a li\n[3]\n{"event": "x"}\n')
    history.note(tmp_path, "resumed", 3)
    first, second = history.read(tmp_path)
    assert (first["event"], first["step"], first["details"]) == ("started", 0, ["from scratch"])
    assert (first["commit"], first["devices"]) == ("abc", "1 × x")
    assert (second["event"], second["step"], second["details"]) == ("resumed", 3, [])
    assert history.read(tmp_path / "nowhere") == []


def test_the_origin_of_a_run_has_each_fact_of_its_starts_once(tmp_path):
    unknown = (history.NOT_RECORDED,)
    assert history.origin(tmp_path) == history.Origin(unknown, unknown, unknown, unknown)
    facts = dict(commit="abc", devices="1 × x", processor="2 cores of y", command="python train.py")
    for event, changed in (
        ("started", {}),
        ("resumed", {}),
        ("changed", {"commit": "no"}),
        ("resumed", {"commit": "d"}),
    ):
        history.note(tmp_path, event, 0, **facts | changed)
    found = history.origin(tmp_path)
    assert (found.commits, found.machines) == (("abc", "d"), ("1 × x, 2 cores of y",))
    assert found.commands == ("python train.py",)
    assert all(len(date) == 10 for date in found.dates)
