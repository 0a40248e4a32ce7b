"""What a result was made with: versions of the packages, the commit of this project, the processor."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import tomllib
from pathlib import Path

PACKAGES = (
    "jax",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "tensorflow-datasets",
    "numpy",
    "opencv-python-headless",
)
"""Those that the numbers depend on."""

MISSING, UNKNOWN = "missing", "unknown"

_PACKAGE = Path(__file__).resolve().parent


def versions() -> dict[str, str]:
    """Version of each of PACKAGES, MISSING where one is not installed, and the "commit" of this code."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = MISSING
    return found | {"commit": commit()}


def commit(package: Path = _PACKAGE) -> str:
    """Twelve digits of the commit that the code in a folder `larvseg_jax` is of, "-dirty" after it if files differ.

    UNKNOWN unless the folder lies in a checkout of this project: a copy that is installed inside the checkout of
    another project must not report the other project's commit.
    """
    try:
        checkout = Path(_git(package, "rev-parse", "--show-toplevel"))
        if not _is_ours(checkout, package):
            return UNKNOWN
        _git(package, "ls-files", "--error-unmatch", Path(__file__).name)
        return _git(package, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return UNKNOWN


def processor() -> str:
    """The processor of this host and how many of its cores this process may use: "2 cores of AMD EPYC"."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        named = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:  # not Linux
        named = None
    model = named[1].strip() if named else platform.processor() or platform.machine()
    return f"{cores} core{'' if cores == 1 else 's'} of {model}"


def _is_ours(checkout: Path, package: Path) -> bool:
    """Whether a checkout has this package at its top, and is described as this project there."""
    if checkout.resolve() != package.resolve().parent:
        return False
    try:
        described = tomllib.loads((checkout / "pyproject.toml").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return described.get("project", {}).get("name") == package.name


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
