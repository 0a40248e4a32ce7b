"""Class names as a CLIP's text vectors: larvseg text_vectors cat,dog --weights=clip.safetensors --out=vectors.npz.

Names are separated by commas; a file has one per line; a class list of the package (`larvseg vocab list`) has its own.
The file has `names`, `vectors` (float32, a row of length 1 for each name), `templates` (sentences whose vectors were
averaged) and `weights` (the SHA-256 of the weights' file, or the run and its step). The vectors are those that a
segmentation by the same weights and templates compares patches with (docs/clip.md).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from larvseg_jax.cli import Flags, Given
from larvseg_jax.commands._places import check_output
from larvseg_jax.errors import UserError
from larvseg_jax.text.prompts import known_templates, templates
from larvseg_jax.text.vectors import write_text_vectors
from larvseg_jax.vocabulary.free_names import free_names
from larvseg_jax.weights.places import check_model

TAKES_REST = True  # names


def define(flags: Flags) -> None:
    """Adds the flags."""
    flags.text("weights", None, "A CLIP's file, or a run or an exported model that reads text.", required=True)
    flags.text("out", None, "The .npz file to be written.", required=True)
    flags.text(
        "templates", "vild_14", f'One of {", ".join(known_templates())}, or a sentence with {{}}: "a photo of a {{}}."'
    )


def main(given: Given) -> None:
    """Writes the file and says what it holds."""
    path = Path(given.weights).expanduser()
    names = free_names(given.rest)
    sentences = templates(given.templates)
    check_output(given.out, "out", ".npz")
    if not path.exists():
        raise UserError(f"there is no {given.weights}: give a CLIP as .safetensors or .pt, or a run that reads text")
    check_model(path)
    # Imported late: a mistyped flag is answered before JAX has started.
    import numpy as np

    from larvseg_jax.console import console, stage
    from larvseg_jax.methods.method import ReadsText
    from larvseg_jax.trained import load_trained

    with stage("model"):
        trained = load_trained(path, classes=names)
    if not isinstance(trained.method, ReadsText):
        raise UserError(f"{path} does not read text: give a CLIP")
    with stage("vectors"):
        vectors = np.asarray(trained.method.text_vectors(trained.params, names, given.templates))
    weights = f"{path.name}, step {trained.step}" if path.is_dir() else _digest(path)
    write_text_vectors(Path(given.out), names, vectors, templates=sentences, weights=weights)
    shape = f"{len(vectors):,} vectors of {vectors.shape[1]} numbers"
    console.print(f"{given.out}: {shape}, {len(sentences)} templates, weights {weights[:40]}")


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
