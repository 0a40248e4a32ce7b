"""Bad input: one line that names the culprit and the remedy, exit code 2, nothing overwritten."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import ml_collections
import numpy as np
import pytest
from PIL import Image

from larvseg_jax import cli
from larvseg_jax.config import from_config
from larvseg_jax.errors import UserError
from larvseg_jax.evaluate import evaluate_checkpoint
from larvseg_jax.train import train
from tests import tiny
from tests.child import environment

REPOSITORY = Path(__file__).parent.parent


def command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments], cwd=REPOSITORY, env=environment(), capture_output=True, text=True
    )


def assert_refused(result: subprocess.CompletedProcess, *parts: str) -> None:
    assert result.returncode == 2, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["train.py"], ["--config"]),
        (["train.py", "--config=configs/none.py"], ["configs/none.py"]),
        (["train.py", "--config=configs/quickstart.py", "--config.total_stepz=3"], ["total_stepz"]),
        (["train.py", "--config=configs/quickstart.py", "--config.total_steps=many"], ["total_steps", "many"]),
        (["train.py", "--config=configs/quickstart.py:nonsense"], ["nonsense", "larvseg or baseline"]),
        (["train.py", "--config=configs/quickstart.py", "surplus"], ["surplus"]),
        (["evaluate.py"], ["--run"]),
    ],
)
def test_wrong_flags_are_answered_in_one_line(arguments, parts):
    assert_refused(command(*arguments), *parts)


def test_a_missing_data_folder_is_answered_in_one_line(tmp_path):
    missing, workdir = tmp_path / "nowhere", tmp_path / "run"
    arguments = [f"--config.data_root={missing}", f"--config.workdir={workdir}"]
    result = command("train.py", "--config=configs/clothing.py", *arguments)
    assert_refused(result, str(missing / "ccp"), "LARVSEG_DATA")
    assert not workdir.exists()


def test_guarded_turns_a_user_error_into_one_line_and_code_2(capsys):
    def main(_: cli.Given) -> None:
        raise UserError("the file\nx is wrong: mend it")

    with pytest.raises(SystemExit) as exit_:
        cli.guarded(main, cli.Flags("train", []).parse())
    assert exit_.value.code == 2
    assert capsys.readouterr().err == "error: the file x is wrong: mend it\n"


@pytest.fixture
def config(tmp_path) -> ml_collections.ConfigDict:
    config = tiny.get_config()
    config.data_root, config.workdir = str(tiny.write_data(tmp_path).parent), str(tmp_path / "run")
    config.total_steps = 2
    return config


def spoil_label(folder: Path) -> str:
    mask = np.array(Image.open(folder / "masks" / "p03.png"))
    mask[5, 6] = 77
    Image.fromarray(mask).save(folder / "masks" / "p03.png")
    return r"p03.*77.*0\.\.4"


def spoil_size(folder: Path) -> str:
    Image.new("L", (9, 7)).save(folder / "masks" / "p03.png")
    return r"p03.*9x7.*36x32.*same size"


def spoil_picture(folder: Path) -> str:
    (folder / "images" / "p03.png").write_bytes(b"no picture")
    return r"p03\.png"


def spoil_tag(folder: Path) -> str:
    splits = json.loads((folder / "splits.json").read_text())
    splits["image_labels"]["p12"] = [1, 9]
    (folder / "splits.json").write_text(json.dumps(splits))
    return r"p12.*9.*0\.\.4"


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [spoil_label, spoil_size, spoil_picture, spoil_tag])
def test_bad_data_stops_the_run_with_its_name(config, spoil):
    message = spoil(Path(config.data_root) / "tiny")
    for stream in config.streams.values():
        stream.batch_size = 16  # every picture is in the first batch
    with pytest.raises(UserError) as error:
        train(from_config(config))
    assert re.search(message, str(error.value))


@pytest.mark.slow
def test_a_run_on_another_vocabulary_leaves_the_old_one_alone(config):
    train(from_config(config))
    workdir = Path(config.workdir)
    before = {p: p.read_bytes() for p in sorted(workdir.rglob("*")) if p.is_file()}
    other = config.copy_and_resolve_references()
    other.vocabulary.classes = (*tiny.NAMES, "pink")
    with pytest.raises(UserError, match=r"another vocabulary \(5 classes, here 6; differing: \['pink'\]\)"):
        train(from_config(other))
    with pytest.raises(UserError, match="another vocabulary"):
        evaluate_checkpoint(workdir, config=other)
    with pytest.raises(UserError, match=r"no checkpoint of step 7: it has \[2\]"):
        evaluate_checkpoint(workdir, step=7)
    assert {p: p.read_bytes() for p in sorted(workdir.rglob("*")) if p.is_file()} == before
    logged = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert evaluate_checkpoint(workdir)["val"].scalars()["aAcc"] == pytest.approx(logged[-1]["aAcc"], abs=1e-9)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("method.ca_classifier.foreground_topk", 17, "top-k of 17 exceeds the 16 patches of streams.tags"),
        ("method.ca_classifier.variant", "both", "method.ca_classifier.variant is 'both'"),
        ("evals.val.window", 4, "evals.val: stride is 8: choose 1 to window = 4"),
        ("evals.val.every", 0, "evals.val.every is 0: use 1 or more"),
        ("log_every", 0, "log_every is 0: use 1 or more"),
        ("mesh.model", -1, "mesh.data=-1 x mesh.model=-1 does not make 8 devices"),
        ("streams.tags.always_tags", ("grass",), "always_tags has 'grass', which is not among the stream's classes"),
        ("optimizer.name", "lion", "optimizer.name is 'lion'"),
        ("model.num_heads", 3, "not a multiple of model.num_heads=3"),
        ("streams.tags.kind", "boxes", "streams.tags.kind is 'boxes'"),
        ("vocabulary.novel", ("blue", "gray"), r"'gray' is not in the vocabulary: did you mean grey"),
        ("vocabulary.novel", ("blue", "red"), "'red' is listed as base and as novel"),
    ],
)
def test_impossible_options_are_named(config, option, value, message):
    config.update_from_flattened_dict({option: value})
    with pytest.raises(UserError, match=message) as caught:
        train(from_config(config))
    assert "\n" not in str(caught.value)


def test_an_evaluation_whose_windows_are_too_small_for_the_attention_is_refused_before_the_first_step(config):
    config.evals.val.update(window=4, stride=4)
    with pytest.raises(UserError, match="top-k of 5 exceeds the 1 patches of an evaluation's window: lower it"):
        train(from_config(config))
    assert not (Path(config.workdir) / "checkpoints").exists()


def test_compiled_programs_are_kept_unless_the_user_says_otherwise(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    cli.keep_compiled_programs()
    assert Path(os.environ["JAX_COMPILATION_CACHE_DIR"]).parent == tmp_path / "larvseg_jax"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    cli.keep_compiled_programs()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == ""
