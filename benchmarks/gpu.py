"""What is measured on a GPU: parts of at most ten minutes each, resumable, in one JSON file per device.

    python -m benchmarks.gpu [--torch_python=PATH] [--parts=attention,precision] [--again=attention] [--out=DIR]

Each part has a process of its own. Its rows are kept in --out under the name of the device as soon as it is done, with
versions, commit and date; the next call measures what is missing or has failed. A part that fails, or takes too long,
is kept as failed with its reason and stops no other one. Exit code 1 if one has failed.

    attention, precision                   a layer's attention, and the class head's products, in several ways
    training_bfloat16, training_float32    the step of configs/c171_i21k.py by batch: time, MFU, memory
    prediction, search                     a photo's best classes, and the search among 21,841 alone
    classes                                image-level losses as classes are added
    pytorch_bfloat16, pytorch_float32      a training step beside PyTorch's: with --torch_python
"""

from __future__ import annotations

import datetime
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks._gpu_parts import NEED_PYTORCH, PARTS
from benchmarks._parts import Outcome, end_parts_when_stopped, run_part
from benchmarks._ratio_table import rounded
from larvseg_jax import provenance
from larvseg_jax.cli import Flags, Given, run_with
from larvseg_jax.console import console
from larvseg_jax.disk import write_text
from larvseg_jax.errors import UserError

LIMIT = 600.0
"""Seconds of a part."""

ENVIRONMENT = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # several processes, PyTorch's among them, share the device
_DEVICE = "import jax; print(jax.default_backend(), jax.devices()[0].device_kind, sep='\\n')"

Measure = Callable[[str], Outcome]
"""Name of a part -> its rows."""


def device_here() -> str:
    """The name of the GPU, asked in another process: this one would hold its memory. UserError if there is none."""
    asked = subprocess.run(
        [sys.executable, "-c", _DEVICE], env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True, check=False
    )
    backend, _, device = asked.stdout.strip().rpartition("\n")
    if asked.returncode or backend.rpartition("\n")[2] != "gpu":
        why = asked.stderr.strip().rpartition("\n")[2] if asked.returncode else f"JAX runs on {backend or 'nothing'}"
        raise UserError(f"there is no GPU here ({why}): install jax[cuda12]; `make benchmarks` is for the CPU")
    return device


def file_of(folder: Path, device: str) -> Path:
    """Where the results of a device lie."""
    return folder / f"{re.sub(r'[^a-z0-9]+', '_', device.lower()).strip('_')}.json"


def read_results(file: Path) -> dict[str, Any]:
    """{part: its entry}, {} without a file. UserError if it is damaged."""
    try:
        found = json.loads(file.read_text("utf-8"))["parts"]
        if not all(entry["status"] in ("done", "failed") for entry in found.values()):
            raise ValueError("a part is neither done nor failed")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{file} cannot be read ({error}): move it away, or give another --out") from error
    return found


def entry_of(outcome: Outcome) -> dict[str, Any]:
    """What is kept of a part."""
    versions = provenance.versions()
    commit, date = versions.pop("commit"), datetime.datetime.now(datetime.UTC).date().isoformat()
    found = {"rows": rounded(outcome.result)} if outcome.status == "done" else {"reason": outcome.reason}
    made = {"commit": commit, "date": date, "seconds": round(outcome.seconds), "versions": versions}
    return {"status": outcome.status, **made, **found}


def run_parts(
    parts: Sequence[str], again: Collection[str], device: str, file: Path, measure: Measure
) -> dict[str, str]:
    """Measures the parts that are not done yet, or asked for again; keeps each in the file as soon as it ends.

    One that fails is kept as failed, unless an earlier result of it is there. Returns {part: why it failed}.
    """
    entries, failed = read_results(file), {}
    done = {part for part in parts if entries.get(part, {}).get("status") == "done"}
    for part in done.difference(again):
        kept = entries[part]
        console.print(f"{part}: done at commit {kept['commit']} on {kept['date']} (--again={part} measures it anew)")
    waiting = [part for part in parts if part not in done or part in again]
    for number, part in enumerate(waiting, 1):
        left = (len(waiting) - number + 1) * LIMIT / 60
        console.print(f"part {number} of {len(waiting)}: {part} ... (at most {left:.0f} minutes for all that are left)")
        entry = entry_of(measure(part))
        console.print(f"part {number} of {len(waiting)}: {part} {entry['status']}, {entry['seconds']} s")
        if entry["status"] == "done":
            show(entry["rows"])
        else:
            failed[part] = entry["reason"]
            console.print(
                f"FAILED: {part}: {entry['reason']}" + (" (the earlier result stays)" if part in done else "")
            )
            if part in done:
                continue
        entries[part] = entry
        kept_now = {"device": device, "processor": provenance.processor(), "parts": entries}
        write_text(file, json.dumps(kept_now, indent=1, ensure_ascii=False) + "\n")
    return failed


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Prints rows as a table."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(*columns)
    for row in rows:
        values = (row.get(column) for column in columns)
        table.add_row(*("" if v is None else f"{v:.4g}" if isinstance(v, float) else str(v) for v in values))
    console.print(table)


def measure_in_processes(torch_python: str | None) -> Measure:
    """Each part in a process of its own."""
    given = [f"--torch_python={torch_python}"] if torch_python else []

    def measure(part: str) -> Outcome:
        command = [sys.executable, "-m", "benchmarks.gpu", f"--one={part}", *given]
        return run_part(command, LIMIT, {**os.environ, **ENVIRONMENT})

    return measure


def chosen(flag: str, value: str | None, default: Sequence[str]) -> list[str]:
    """The parts that a flag names, in the order of all. UserError if there is no such part."""
    if not value:
        return list(default)
    named = value.split(",")
    if unknown := [part for part in named if part not in PARTS]:
        raise UserError(f"--{flag}={value}: there is no part {unknown[0]!r}: {', '.join(PARTS)}")
    return [part for part in PARTS if part in named]


def main(given: Given) -> None:
    """Measures what is missing and leaves with 0 or 1."""
    if given.one:
        write_text(Path(given.result), json.dumps(PARTS[given.one](given.torch_python or "")))
        return
    end_parts_when_stopped()
    again = chosen("again", given.again, ())
    parts = chosen("parts", given.parts, again or list(PARTS))
    if left_out := [] if given.torch_python else [part for part in parts if part in NEED_PYTORCH]:
        console.print(f"skipped, because no --torch_python names a Python with PyTorch: {', '.join(left_out)}")
    device = device_here()
    file = file_of(Path(given.out), device)
    parts = [part for part in parts if part not in left_out]
    failed = run_parts(parts, again, device, file, measure_in_processes(given.torch_python))
    console.print(f"{file}: {len(parts) - len(failed)} of {len(parts)} parts are done")
    sys.exit(1 if failed else 0)


def flags(argv: Sequence[str]) -> Flags:
    """What can be given."""
    found = Flags("gpu", argv)
    found.text("out", str(Path(__file__).with_name("results")), "folder of the results")
    found.text("parts", None, f"only some of {', '.join(PARTS)}")
    found.text("again", None, "parts to be measured anew although they are done")
    found.text("torch_python", None, "an interpreter with PyTorch")
    found.text("one", None, "of the program itself: measures a part in this process")
    found.text("result", None, "of the program itself: where its rows go")
    return found


if __name__ == "__main__":
    run_with(flags(sys.argv[1:]), main, __doc__)
