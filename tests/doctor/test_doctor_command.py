"""The command itself: exit codes and flags."""

import json

import pytest

from tests import tiny
from tests.test_cli import assert_refused, command


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["--config"]),
        (["--config=configs/none.py"], ["configs/none.py"]),
        (["--config=tests/tiny.py", "--photos=0"], ["photos"]),
    ],
)
def test_a_bad_command_line_is_code_2(arguments, parts):
    assert_refused(command("-m", "larvseg_jax.doctor", *arguments), *parts)


@pytest.mark.slow
def test_a_clean_run_is_code_0_a_spoilt_one_1_and_a_bad_config_2(tmp_path):
    folder = tiny.write_data(tmp_path)
    options = ["-m", "larvseg_jax.doctor", "--config=tests/tiny.py", f"--config.data_root={tmp_path}"]
    options += [f"--config.workdir={tmp_path / 'run'}", "--seconds=0", "--notime_step"]
    clean = command(*options, f"--json={tmp_path / 'facts.json'}", "--full")
    assert clean.returncode == 0, clean.stderr
    assert json.loads((tmp_path / "facts.json").read_text())["counts"]["error"] == 0
    assert (tmp_path / "run" / "doctor.html").exists()
    (folder / "images" / "p03.png").write_bytes(b"")
    spoilt = command(*options, f"--out={tmp_path / 'sheet.html'}")
    assert spoilt.returncode == 1
    assert "p03.png: no readable picture in these 0 bytes" in spoilt.stdout
    assert (tmp_path / "sheet.html").exists()
    assert_refused(command(*options, "--config.log_every=0"), "log_every is 0")
