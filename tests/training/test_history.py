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
