"""--set of the command that predicts: options of the method, as they reach the model."""

import pytest

from larvseg_jax import cli
from larvseg_jax.commands._settings import method_settings
from larvseg_jax.errors import UserError
from larvseg_jax.options import merged
from larvseg_jax.predict import predict
from tests import tiny
from tests.methods.cel.tiny_cel import experiment, write_data


def test_settings_become_sections():
    found = method_settings(
        [
            "method.ensemble.kind=simple",
            "method.ensemble.weight=0.7",
            "method.templates=a {} = b",
            "method.ensemble.clip=1/2",
        ]
    )
    assert found == {"ensemble": {"kind": "simple", "weight": 0.7, "clip": "1/2"}, "templates": "a {} = b"}
    assert method_settings([]) == {}


@pytest.mark.parametrize(
    "text", ["method.ensemble", "=1", "total_steps=3", "method=3", "method.=3", "method..kind=x", "method.name=clip"]
)
def test_what_sets_no_option_of_the_method(text):
    with pytest.raises(UserError, match=r"^--set=") as caught:
        method_settings([text])
    assert text in str(caught.value)


def test_an_option_and_a_section_of_one_name():
    with pytest.raises(UserError, match="ensemble was given a value of its own before"):
        method_settings(["method.ensemble=1", "method.ensemble.kind=simple"])


def test_sections_keep_what_is_not_set():
    own = {"name": "cel", "ensemble": {"kind": "none", "weight": 0.7}, "rank": {"weight": 1.0}}
    assert merged(own, {"ensemble": {"kind": "simple"}, "rank": 3}) == {
        "name": "cel",
        "ensemble": {"kind": "simple", "weight": 0.7},
        "rank": 3,
    }
    assert own["ensemble"]["kind"] == "none"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("settings")
    write_data(root)
    tiny.save_untrained(experiment(root, root / "cel"))
    return root


def said_by(run, capsys, *flags):
    with pytest.raises(SystemExit) as left:
        cli.run("predict", [str(run / "tiny" / "images"), f"--model={run / 'cel'}", f"--out={run / 'out'}", *flags])
    assert left.value.code == 2
    return capsys.readouterr().err


def test_they_reach_the_model(run, monkeypatch, capsys):
    def loads(*_, options, **__):
        raise UserError(f"it was asked for {options}")

    monkeypatch.setattr(predict, "load_trained", loads)
    assert "{'ensemble': {'kind': 'zegformer'}}" in said_by(run, capsys, "--set=method.ensemble.kind=zegformer")
    assert "it was asked for {}" in said_by(run, capsys)


def test_slips_are_named(run, capsys):
    assert "ensemble.kind=simple asks a CLIP" in said_by(run, capsys, "--set=method.ensemble.kind=simple")
    assert "method.ensemble.kind" in said_by(run, capsys, "--set=method.ensemble.kind=both")
    assert "ensembel" in said_by(run, capsys, "--set=method.ensembel.kind=simple")
    assert "weight" in said_by(run, capsys, "--set=method.ensemble.weight=much")
