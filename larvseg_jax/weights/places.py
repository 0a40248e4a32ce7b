"""Where a model lies: a run, one of its checkpoints, a file. Reads no weights, so that a slip is told at once."""

from __future__ import annotations

import difflib
import json
from pathlib import Path

from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary import Vocabulary
from larvseg_jax.vocabulary.stated import aliases_in, lists_in

_HEADER = 8  # bytes before the JSON of a .safetensors file
_LONGEST_HEADER = 100_000_000  # bytes, as the format has it


def find_run(path: Path, step: int | None) -> tuple[Path, int | None]:
    """The folder of a run, and the step if the path of a checkpoint says it. UserError if it is neither."""
    path = path.absolute()
    if (path / "checkpoints").is_dir():
        return path, step
    if path.parent.name == "checkpoints" and path.name.isdecimal() and path.is_dir():
        if step not in (None, int(path.name)):
            raise UserError(f"{path} is not the checkpoint of step {step}: leave one of the two out")
        return path.parent.parent, int(path.name)
    meant = _runs_near(path)
    hint = f"did you mean {' or '.join(meant)}, or" if meant else "give"
    raise UserError(
        f"{path} is no run and no checkpoint: {hint} a folder with checkpoints/ in it, or one like "
        "runs/x/checkpoints/800"
    )


def stated_classes(path: Path, step: int | None = None) -> tuple[Vocabulary, tuple[str, ...]] | None:
    """The classes of a model by its own account, in no time, and the class lists that these were made of.

    None where it has no account that can be read; one that is wrong is told of when the model is loaded. Nor does it
    say all that it knows where its method has a tokenizer: any word is a class then.
    """
    try:
        if path.is_file():
            with path.open("rb") as file:
                length = int.from_bytes(file.read(_HEADER), "little")
                stated = json.loads(file.read(min(length, _LONGEST_HEADER)))["__metadata__"]
            classes, settings = json.loads(stated["classes"]), json.loads(stated["settings"])
        else:
            run, step = find_run(path, step)
            record = run / "checkpoints" / str(steps_named(run)[-1] if step is None else step) / "record" / "metadata"
            stated = json.loads(record.read_text("utf-8"))
            classes, settings = stated["classes"], stated["settings"]
        if "tokenizer" in settings.get("method", {}):
            return None
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            return None
        return Vocabulary(tuple(classes), aliases=aliases_in(settings, path)), lists_in(settings)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, UserError):
        return None


def check_model(path: Path, step: int | None = None) -> None:
    """UserError if there is no model at `path`, or no checkpoint of that step. Whether it is whole shows on reading."""
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(_HEADER + 1)
        archive = path.suffix == ".pt" and head.startswith(b"PK")  # OpenAI's CLIP
        if path.suffix != ".safetensors" and not archive and head[_HEADER:] != b"{":
            raise UserError(f"{path} is no model: give the folder of a run, of a checkpoint, or a .safetensors file")
        return
    if path.suffix == ".safetensors" and not path.exists():
        raise UserError(
            f"there is no file {path}: give one that larvseg_jax.export has written, or the folder of a run"
        )
    run, step = find_run(path, step)
    there = steps_named(run)
    if not there or step not in (None, *there):
        raise UserError(f"{run} has no checkpoint of step {step}: it has {there or 'none at all'}")


def steps_named(run: Path) -> list[int]:
    """Steps of which a run has a folder, ascending. Those that are under way are called otherwise."""
    return sorted(int(folder.name) for folder in run.glob("checkpoints/*/") if folder.name.isdecimal())


def _runs_near(path: Path) -> list[str]:
    """Runs that may be meant: the one around it, those inside it, those beside it with nearly its name."""
    if path.name == "checkpoints":
        return [str(path.parent)]
    if path.is_dir():
        return [str(p.parent) for p in sorted(path.glob("*/checkpoints"))][:3]
    beside = [p.parent.name for p in sorted(path.parent.glob("*/checkpoints"))]
    return [str(path.parent / name) for name in difflib.get_close_matches(path.name, beside, n=3)]
