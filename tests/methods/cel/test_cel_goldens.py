"""The recorded losses, assignments and labels of Mask2Former and CEL, and that a wrong one is found."""

import shutil

import numpy as np
import pytest

from tests.parity.__main__ import main

KINDS = ["cel_losses", "cel_inference", "mask2former_losses", "mask2former_inference"]


@pytest.fixture
def given(shared):
    folder = shared / "goldens-vl" / "given"
    if not folder.is_dir():
        pytest.skip(f"no goldens of vision and language here ({folder} is no folder)")
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_golden(given, tmp_path, capsys, kind):
    shutil.copy(given / f"{kind}.npz", tmp_path)
    assert main([str(tmp_path)]) == 0, capsys.readouterr().out
    assert "1 files, 0 failures" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "array"), [("cel_inference", "out/zegformer"), ("mask2former_inference", "out/semantic")]
)
def test_a_changed_number_is_found(given, tmp_path, capsys, kind, array):
    with np.load(given / f"{kind}.npz") as file:
        arrays = {name: file[name] for name in file.files}
    arrays[array] = arrays[array] * np.float32(1.0003)
    np.savez(tmp_path / f"{kind}.npz", **arrays)
    assert main([str(tmp_path)]) == 1
    assert f"FAILED {kind}: " in capsys.readouterr().out
