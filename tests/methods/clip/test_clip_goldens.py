"""A changed number in what other implementations of CLIP computed is found. The right ones: tests/test_parity.py."""

import numpy as np
import pytest

from tests.parity.__main__ import main


@pytest.fixture
def given(shared):
    return shared / "goldens-vl" / "given"


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
