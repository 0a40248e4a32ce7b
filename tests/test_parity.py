"""`python -m tests.parity` itself: it passes on the goldens, and fails where it has to."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.parity.__main__ import case_of, main

REPOSITORY = Path(__file__).resolve().parent.parent
QUICK = ["head_forward_in124_s0", "image_loss_in124_s0", "metrics_s0", "slide_s1", "resize_shapes"]


@pytest.fixture
def given(shared):
    """Recorded from the authors' code of LarvSeg."""
    return shared / "goldens" / "given"


@pytest.fixture
def given_of_others(shared):
    """Recorded from other implementations of CLIP, MaskCLIP, ReCo, ViL-Seg, Mask2Former and CEL."""
    return shared / "goldens-vl" / "given"


def copy(given, folder, names):
    for name in names:
        shutil.copy(given / f"{name}.npz", folder)


def change(path, name, change_value):
    """Rewrites one array of a golden."""
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    arrays[name] = change_value(arrays[name])
    np.savez(path, **arrays)


def test_a_few_goldens(given, tmp_path, capsys):
    copy(given, tmp_path, QUICK)
    assert main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert all(case_of(name) in out for name in QUICK)
    assert f"{len(QUICK)} files, 0 failures" in out


@pytest.mark.slow
def test_all_goldens(given, shared, tmp_path):
    for path in sorted((*given.glob("*.npz"), *(shared / "goldens-vl" / "given").glob("*.*"))):
        shutil.copy(path, tmp_path)
    command = [sys.executable, "-m", "tests.parity", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"\n{case} " in done.stdout for case in {case_of(path.stem) for path in given.glob("*.npz")})


@pytest.mark.parametrize("folder", ["nothing", "missing", "only weights"])
def test_nothing_to_check_is_no_success(tmp_path, capsys, folder):
    path = tmp_path / folder
    if folder != "missing":
        path.mkdir()
    if folder == "only weights":
        np.savez(path / "vit_npz_s0_weights.npz", cls=np.zeros(3))
    assert main([str(path)]) == 1
    assert str(path) in capsys.readouterr().out


def test_an_unknown_case_is_no_success(given, tmp_path, capsys):
    copy(given, tmp_path, ["resize_shapes"])
    np.savez(tmp_path / "heads_s0.npz", meta="{}")
    assert main([str(tmp_path)]) == 1
    assert "heads_s0.npz: no known case" in capsys.readouterr().out


def test_a_damaged_file_fails_and_the_others_are_still_checked(given, tmp_path, capsys):
    copy(given, tmp_path, ["resize_shapes"])
    (tmp_path / "metrics_s0.npz").write_bytes(b"no golden")
    assert main([str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "metrics_s0.npz: stopped" in out
    assert "resize_shapes" in out


# One entry of each kind of quantity, changed by a little more than its tolerance.
PERTURBED = [
    ("metrics_s0", "iou", lambda x: x * (1 + 3e-6)),
    ("resize_shapes", "rows", lambda x: x + (np.arange(x.size).reshape(x.shape) == x.shape[1] - 1)),
    ("slide_s1", "logits", lambda x: x + 1e-4 * np.abs(x).max()),
    ("image_loss_in124_s0", "total", lambda x: x * 1.0002),
    ("image_loss_in124_s0", "grad_features", lambda x: x * 1.0002),
    ("image_loss_in124_s0", "grad_gamma", lambda x: np.full_like(x, np.nan)),
    ("image_loss_in124_s0", "pair_label", lambda x: x + 1),
]


@pytest.mark.parametrize(("file", "array", "change_value"), PERTURBED, ids=lambda x: x if isinstance(x, str) else "")
def test_a_changed_number_is_found(given, tmp_path, capsys, file, array, change_value):
    copy(given, tmp_path, [file])
    change(tmp_path / f"{file}.npz", array, change_value)
    assert main([str(tmp_path)]) == 1
    assert f"FAILED {file}" in capsys.readouterr().out


def last_one_more(x):
    x = x.copy()
    x.flat[-1] += 1
    return x


def scaled(x):
    return x * np.float32(1.0003)


PERTURBED_OF_OTHERS = [
    ("clip_tiny_openai_names", "w/transformer.resblocks.1.attn.in_proj_bias", last_one_more, "text_features"),
    ("maskclip_tiny", "w/visual.transformer.resblocks.2.attn.in_proj_weight", last_one_more, "value_cosine"),
    ("reco_cosegment", "in/text_attention", last_one_more, "weights"),
    ("tokenizer_toy", "out/ids", last_one_more, "ids"),
    ("vilseg_vision", "out/sharpened_loss", scaled, ""),
    ("vilseg_cross", "grad/paper_text", scaled, ""),
    ("vilseg_iic", "out/map_loss", scaled, ""),
    ("vilseg_inference", "out/regions", scaled, ""),
    ("scores", "out/pixel_accuracy_unseen", scaled, ""),
    ("cel_inference", "out/zegformer", scaled, ""),
    ("mask2former_inference", "out/semantic", scaled, ""),
    ("deformable_attention", "in/spatial_shapes", lambda x: np.array([[12, 8], [4, 6]], x.dtype), "output"),
    ("sine_position", "in/shape", lambda x: np.array([16, 4, 7], x.dtype), "embedding"),
]


@pytest.mark.parametrize(("file", "array", "change_value", "quantity"), PERTURBED_OF_OTHERS)
def test_a_changed_number_of_others_is_found(given_of_others, tmp_path, capsys, file, array, change_value, quantity):
    copy(given_of_others, tmp_path, [file])
    change(tmp_path / f"{file}.npz", array, change_value)
    assert main([str(tmp_path)]) == 1
    assert re.search(f"FAILED {file}.*: {quantity}.*(is off|has shape)", capsys.readouterr().out)


@pytest.mark.parametrize("file", ["vit_s0", pytest.param("vit_npz_s0_io", marks=pytest.mark.slow)])
def test_the_backbone_has_the_epsilon_that_was_recorded(given, tmp_path, capsys, file):
    copy(given, tmp_path, [file, "vit_npz_s0_weights"])

    def with_epsilon(epsilon):
        return lambda meta: np.array(json.dumps(json.loads(str(meta)) | {"ln_eps": epsilon}))

    change(tmp_path / f"{file}.npz", "meta", with_epsilon(1e-6))  # that of the recording
    assert main([str(tmp_path)]) == 0
    change(tmp_path / f"{file}.npz", "meta", with_epsilon(1e-3))
    assert main([str(tmp_path)]) == 1
    assert f"FAILED {file}: features is off" in capsys.readouterr().out


def test_usage(capsys):
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err
