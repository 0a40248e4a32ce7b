"""CLIP against what other implementations computed (tests/parity/clip_cases.py), and that a changed number is found."""

import shutil

import numpy as np
import pytest

from tests.parity.__main__ import NOT_COVERED, case_of, main

FILES = [
    "clip_tiny_hf.npz",
    "clip_tiny_openai_names.npz",
    "maskclip_tiny.npz",
    "openai_archive_tiny.pt",
    "reco_cosegment.npz",
    "tokenizer_clip.npz",
    "tokenizer_toy.npz",
]


@pytest.fixture
def given(shared):
    return shared / "goldens-vl" / "given"


def test_goldens_of_clip(given, tmp_path, capsys):
    for name in FILES:
        shutil.copy(given / name, tmp_path)
    assert main([str(tmp_path)]) == 0, capsys.readouterr().out


CHANGED = [
    ("clip_tiny_openai_names", "w/transformer.resblocks.1.attn.in_proj_bias", "text_features"),
    ("maskclip_tiny", "w/visual.transformer.resblocks.2.attn.in_proj_weight", "value_cosine"),
    ("reco_cosegment", "in/text_attention", "weights"),
    ("tokenizer_toy", "out/ids", "ids"),
]


@pytest.mark.parametrize(("file", "array", "quantity"), CHANGED)
def test_a_changed_number_is_found(given, tmp_path, capsys, file, array, quantity):
    with np.load(given / f"{file}.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    arrays[array].flat[-1] += 1
    np.savez(tmp_path / f"{file}.npz", **arrays)
    assert main([str(tmp_path)]) == 1
    assert f"FAILED {file}: {quantity} is off" in capsys.readouterr().out


def test_kinds_that_nothing_computes_yet_are_no_success(given, tmp_path, capsys):
    missing = next((path for path in sorted(given.glob("*.npz")) if case_of(path.stem, NOT_COVERED)), None)
    if missing is None:
        pytest.skip("all kinds are covered")
    shutil.copy(given / "tokenizer_toy.npz", tmp_path)
    shutil.copy(missing, tmp_path)
    assert main([str(tmp_path)]) == 3
    assert f"NOT YET COVERED {missing.name}" in capsys.readouterr().out
