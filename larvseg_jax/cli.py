"""The border to the command line: flags in, exit codes out (0 done, 2 bad input)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from absl import app, flags, logging

from larvseg_jax.errors import UserError


def run(main: Callable[[], None]) -> None:
    """Parses the flags and calls main; bad input becomes one line on stderr and exit code 2."""
    logging.set_verbosity(logging.WARNING)  # Orbax tells at length of every save
    app.run(lambda _: _guarded(main), flags_parser=_parse)


def _guarded(main: Callable[[], None]) -> None:
    try:
        main()
    except UserError as error:
        _fail(error)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)


def _parse(argv: Sequence[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
        if "config" in flags.FLAGS and flags.FLAGS["config"].value is not None:
            _ = flags.FLAGS["config"].value.name  # a file that could not be loaded says so only when it is used
    except (flags.Error, UserError, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        _fail(error)
    if len(rest) > 1:
        _fail(f"unexpected argument {rest[1]!r}: options start with --")
    return rest


def _fail(problem: object) -> NoReturn:
    """One line on stderr; of a traceback (an error inside a config file) only what it ends with."""
    text = str(problem).strip()
    if "Traceback (most recent call last)" in text:
        text = f"{text.splitlines()[0].split('Traceback')[0]}{text.splitlines()[-1]}"
    print(f"error: {' '.join(text.split())}", file=sys.stderr)
    sys.exit(2)
