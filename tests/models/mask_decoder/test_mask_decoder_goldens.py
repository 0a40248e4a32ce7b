"""Mask2Former's decoders against what another implementation computed (tests/parity/mask_decoder_cases.py)."""

import re
import shutil

import numpy as np
import pytest

from larvseg_jax.models.mask_decoder.weights import decoder_parameters
from tests.parity.__main__ import main

FILES = ["deformable_attention.npz", "masked_decoder_tiny.npz", "pixel_decoder_tiny.npz", "sine_position.npz"]


@pytest.fixture
def given(shared):
    return shared / "goldens-vl" / "given"


def test_goldens_of_the_mask_decoder(given, tmp_path, capsys):
    for name in FILES:
        shutil.copy(given / name, tmp_path)
    assert main([str(tmp_path)]) == 0, capsys.readouterr().out


CHANGED = [
    ("deformable_attention", "in/spatial_shapes", [[12, 8], [4, 6]], "output"),
    ("sine_position", "in/shape", [16, 4, 7], "embedding"),
]


@pytest.mark.parametrize(("file", "array", "value", "quantity"), CHANGED)
def test_a_changed_number_is_found(given, tmp_path, capsys, file, array, value, quantity):
    with np.load(given / f"{file}.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    np.savez(tmp_path / f"{file}.npz", **(arrays | {array: np.array(value, np.int32)}))
    assert main([str(tmp_path)]) == 1
    assert re.search(f"FAILED {file}.*: {quantity} (is off|has shape)", capsys.readouterr().out)


def test_an_unknown_array_is_an_error():
    with pytest.raises(ValueError, match=r"class_predictor\.weight is none of Mask2Former's arrays"):
        decoder_parameters({"class_predictor.weight": np.zeros((3, 4), np.float32)}, 1)
