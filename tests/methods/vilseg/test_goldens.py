"""A changed number in the recorded losses, gradients and labels is found. The right ones: tests/test_parity.py."""

import numpy as np
import pytest

from tests.parity.__main__ import main


@pytest.fixture
def given(shared):
    folder = shared / "goldens-vl" / "given"
    if not folder.is_dir():
        pytest.skip(f"no goldens of vision and language here ({folder} is no folder)")
    return folder


@pytest.mark.parametrize(
    ("kind", "array"),
    [
        ("vilseg_vision", "out/sharpened_loss"),
        ("vilseg_cross", "grad/paper_text"),
        ("vilseg_iic", "out/map_loss"),
        ("vilseg_inference", "out/regions"),
        ("scores", "out/pixel_accuracy_unseen"),
    ],
)
def test_a_changed_number_is_found(given, tmp_path, capsys, kind, array):
    with np.load(given / f"{kind}.npz") as file:
        arrays = {name: file[name] for name in file.files}
    arrays[array] = arrays[array] * np.float32(1.0003)
    np.savez(tmp_path / f"{kind}.npz", **arrays)
    assert main([str(tmp_path)]) == 1
    assert f"FAILED {kind}: " in capsys.readouterr().out
