"""Versions and commit: this project's own, never those of a checkout that it happens to be installed in."""

import importlib.metadata
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from larvseg_jax import provenance

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
OURS, THEIRS = '[project]\nname = "larvseg_jax"\n', '[project]\nname = "theirs"\n'


def git(folder, *arguments):
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", folder, *who, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def checkout(root, package="larvseg_jax", project=OURS, tracked=True):
    """A git checkout with this package at `package`; returns the package's folder."""
    folder = root / package
    folder.mkdir(parents=True)
    (folder / "provenance.py").write_text("# code\n")
    (root / "README.md").write_text("read\n")
    if project:
        (root / "pyproject.toml").write_text(project)
    git(root, "init", "-q")
    git(root, "add", *([] if tracked else ["README.md"]), *(["."] if tracked else []))
    git(root, "commit", "-qm", "first")
    return folder


def test_the_commit_of_its_own_checkout(tmp_path):
    folder = checkout(tmp_path)
    git(tmp_path, "tag", "-a", "v9", "-m", "a name that is not to appear")
    commit = git(tmp_path, "rev-parse", "HEAD")[:12]
    assert provenance.commit(folder) == commit
    (folder / "provenance.py").write_text("# other code\n")
    assert provenance.commit(folder) == f"{commit}-dirty"


@pytest.mark.parametrize(
    "foreign",
    [
        dict(package=".venv/lib/python3/site-packages/larvseg_jax", tracked=False),  # installed inside a checkout
        dict(package=".venv/lib/python3/site-packages/larvseg_jax", project=THEIRS, tracked=False),
        dict(package="vendored/larvseg_jax", project=THEIRS),  # copied into another project, and committed there
        dict(package="vendored/larvseg_jax", project=OURS),
        dict(project=THEIRS),
        dict(project="name = broken"),
        dict(project=""),
        dict(tracked=False),
    ],
)
def test_the_commit_of_a_foreign_checkout_is_not_ours(tmp_path, foreign):
    assert provenance.commit(checkout(tmp_path, **foreign)) == "unknown"


def test_no_checkout_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.commit(tmp_path) == "unknown"
    monkeypatch.setenv("PATH", "")
    assert provenance.commit(tmp_path) == "unknown"


def test_versions_name_what_is_missing(monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGES", ("numpy", "no-such-package"))
    found = provenance.versions()
    assert found == {
        "numpy": importlib.metadata.version("numpy"),
        "no-such-package": "missing",
        "commit": provenance.commit(),
    }


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="needs Linux")
def test_the_processor_and_the_cores_that_may_be_used():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    cores, of, model = provenance.processor().partition(" of ")
    assert of
    assert model == models[0] if models else model
    assert cores == f"{len(os.sched_getaffinity(0))} core{'s' * (len(os.sched_getaffinity(0)) > 1)}"
