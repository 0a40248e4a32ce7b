"""Mask2Former's decoders against what another implementation computed (tests/parity/mask_decoder_cases.py)."""

import shutil

import pytest

from tests.parity.__main__ import main

FILES = ["masked_decoder_tiny.npz", "sine_position.npz"]


@pytest.fixture
def given(shared):
    return shared / "goldens-vl" / "given"


def test_goldens_of_the_mask_decoder(given, tmp_path, capsys):
    for name in FILES:
        shutil.copy(given / name, tmp_path)
    assert main([str(tmp_path)]) == 0, capsys.readouterr().out
