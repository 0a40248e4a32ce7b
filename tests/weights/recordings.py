"""Tiny backbones of other implementations and what these compute (tests/weights/backbones/record_backbones.py)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from tests.weights.pth_files import write_pth

FOLDER = Path(__file__).parent / "backbones"
NAMES = sorted(path.stem for path in FOLDER.glob("*.npz"))


@dataclasses.dataclass(frozen=True)
class Recording:
    """What the other implementation's file holds, the options of `model`, and pictures with all their tokens."""

    name: str
    state: dict[str, np.ndarray]
    options: dict[str, Any]
    cases: dict[str, tuple[np.ndarray, np.ndarray]]

    def write(self, path: Path) -> Path:
        """The arrays as a file of the kind that the path's suffix says."""
        if path.suffix == ".npz":
            np.savez(path, **self.state)
        elif path.suffix == ".safetensors":
            safetensors.numpy.save_file(self.state, path, {"format": "pt"})
        else:
            write_pth(path, self.state)
        return path


def recording(name: str) -> Recording:
    """One of NAMES."""
    with np.load(FOLDER / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    options = json.loads(str(arrays["about"]))["options"]
    state = {key.removeprefix("state/"): value for key, value in arrays.items() if key.startswith("state/")}
    sizes = {"stored": "", "other": "_other"}
    cases = {
        size: (arrays[f"images{suffix}"], arrays[f"tokens{suffix}"])
        for size, suffix in sizes.items()
        if f"tokens{suffix}" in arrays
    }
    return Recording(name, state, options, cases)
