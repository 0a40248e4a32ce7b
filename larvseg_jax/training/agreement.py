"""Several processes of one run compare what they run: another learning rate on one of them would train on silently."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from larvseg_jax.console import first_few
from larvseg_jax.devices.processes import from_all
from larvseg_jax.errors import UserError
from larvseg_jax.options import flat, plain, short


def check_same_everywhere(name: str, facts: Mapping[str, Any]) -> None:
    """UserError, on every process alike, unless all were called with the same facts: what can be JSON, nested.

    `name` is that of the comparison. One process alone agrees with itself.
    """
    text = json.dumps(facts, sort_keys=True, default=str)
    # Class lists are long: all of the text is sent only if it differs.
    if len(set(from_all(f"{name} digest", hashlib.sha256(text.encode()).hexdigest()))) > 1:
        found = differences([json.loads(said) for said in from_all(name, text)])
        raise UserError(
            f"the processes differ: {first_few(found, 8, separator='; ')}; "
            "start all of them with the same command, code and data"
        )


def differences(facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is not the same on all processes: "seed is 0 on process 0, 1 on processes 1 and 2"."""
    found = []
    levels = [flat(of_one) for of_one in facts]
    for name in sorted(set().union(*levels)):
        values: dict[str, list[int]] = {}
        for process, level in enumerate(levels):
            values.setdefault(repr(plain(level[name])) if name in level else "", []).append(process)
        if len(values) > 1:
            shown = (_on(levels[of[0]].get(name), name in levels[of[0]], of) for of in values.values())
            found.append(f"{name} is {', '.join(shown)}")
    return found


def _on(value: Any, given: bool, processes: Sequence[int]) -> str:
    first, last = ", ".join(map(str, processes[:-1])), processes[-1]
    where = f"processes {first} and {last}" if first else f"process {last}"
    return f"{short(plain(value)) if given else 'not given'} on {where}"
