"""larvseg page: what is wrong is said in one line, before a model is loaded."""

import socket

import pytest

from larvseg_jax import cli
from larvseg_jax.commands import page
from larvseg_jax.page.serve import short_names
from tests.predict.models import write_model


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "m.safetensors", ("cat", "dog"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--model is missing"),
        (["--model=m.safetensors"] * 3, "3 models are given"),
        (["--model=none.safetensors"], "none.safetensors"),
        (["--model=m.safetensors", "--port=TAKEN"], "give another one"),
        (["--model=m.safetensors", "--port=70000"], "65535 is the last one"),
        (["--model=m.safetensors", "--scale=3"], "--scale=3"),
        (["--model=m.safetensors", "--share"], "--share"),
    ],
)
def test_what_is_wrong_is_one_line(here, arguments, message, capsys):
    with pytest.raises(SystemExit) as left:
        cli.run("page", [argument.replace("TAKEN", str(here)) for argument in arguments])
    (line,) = capsys.readouterr().err.splitlines()
    assert left.value.code == 2
    assert message in line


def test_a_missing_gradio_is_said(here, monkeypatch, capsys):
    monkeypatch.setattr(page.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        cli.run("page", ["--model=m.safetensors"])
    assert "pip install -e '.[page]'" in capsys.readouterr().err


def test_models_are_called_by_as_much_of_their_paths_as_tells_them_apart():
    assert short_names(["animals"]) == ["animals"]
    assert short_names(["runs/a", "runs/b.safetensors"]) == ["a", "b"]
    assert short_names(["runs/a/best", "runs/b/best"]) == ["a/best", "b/best"]
    assert short_names(["runs/a", "runs/a"]) == ["runs/a (1)", "runs/a (2)"]
