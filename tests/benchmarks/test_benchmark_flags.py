"""The flags of the benchmarks that have the program's own: what --help prints, and slips in one line."""

import pytest

from benchmarks import gate, gpu, soak
from larvseg_jax.cli import run_with


@pytest.mark.parametrize("benchmark", [gate, gpu, soak], ids=lambda module: module.__name__)
def test_help_says_what_it_is_and_its_flags(benchmark, capsys):
    run_with(benchmark.flags(["--help"]), pytest.fail, benchmark.__doc__)
    printed = capsys.readouterr().out
    assert printed.startswith(benchmark.__doc__.splitlines()[0])
    flag = "minutes" if benchmark is soak else "parts"
    assert f"--{flag}" in printed.removeprefix(benchmark.__doc__.strip())


@pytest.mark.parametrize("benchmark", [gate, gpu, soak], ids=lambda module: module.__name__)
@pytest.mark.parametrize("slip", ["--nothing=1", "nothing"])
def test_a_slip_is_one_line(benchmark, slip, capsys):
    with pytest.raises(SystemExit) as left:
        run_with(benchmark.flags([slip]), pytest.fail, benchmark.__doc__)
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "nothing" in error
    assert error.count("\n") == 1
