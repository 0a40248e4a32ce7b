"""The border to the command line, the same for every tool: flags in, exit codes out (0 done, 2 bad input).

A command is a module of larvseg_jax/commands/ with a docstring that says what it does, `define(flags)` for its flags
and `main(given)`. Flags are absl's, because those of config files (`--config=FILE.py --config.option=value`), which are
ml_collections', are too. Each command has its own set: nothing is defined for the whole process.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import hashlib
import importlib
import os
import platform
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import flags as absl_flags
from absl import logging
from ml_collections import config_flags

from larvseg_jax import command_line
from larvseg_jax.console import print_any_text, printable
from larvseg_jax.disk import cache_folder
from larvseg_jax.errors import Stopped, UserError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)

COMMANDS = {
    "train": "trains a config, or goes on where it was stopped",
    "evaluate": "scores a checkpoint on photos with masks",
    "report": "puts runs side by side on one page",
    "demo": "a first look: segments photos by a model that comes with the program",
    "predict": "segments your photos",
    "page": "a page in the browser to play with: pictures, classes, two models",
    "teach": "one more class from a few photos, without training",
    "grid": "trains a table of configs with several seeds and writes its results",
    "text_vectors": "class names as the text vectors of a CLIP, in a file",
    "vocab": "searches vocabularies and class lists, shows what is a kind of what",
    "doctor": "says before the first step what is wrong with data, weights or machine",
    "prepare": "turns a downloaded data set into one that trains fast",
    "scenes": "generates the quickstart's data set",
    "features": "runs your photos through the frozen part of a backbone, once for all trainings",
    "caption_tags": "tags photos by the things that their captions name",
    "pseudo_labels": "labels photos with classes that nobody has named in them, by proposals and a CLIP",
    "oracle": "the oracle test of the paper's Table 1",
    "compile_check": "compiles the step for a TPU slice or GPUs that are not here",
    "replay": "repeats the step at which a run diverged",
    "export": "writes a trained model to one .safetensors file",
    "import_original": "turns a PyTorch checkpoint of the original into a file of ours",
}
"""Command -> what it does; each is a module of larvseg_jax/commands/."""

_BEGINS_AGAIN = "the same command begins again"


class Given:
    """The values of a command's flags, given.step; what stands without a flag is in `rest`, the line in `command`."""

    def __init__(self, values: absl_flags.FlagValues, rest: list[str], words: Sequence[str]) -> None:
        self._values, self.rest, self.command = values, rest, shlex.join(["larvseg", *words])

    def __getattr__(self, name: str) -> Any:
        return self.value(name)

    def value(self, name: str) -> Any:
        """The same for a name that Python does not take, such as "from"."""
        return self._values[name].value


class Flags:
    """The flags of one command, to be added one by one."""

    def __init__(self, program: str, argv: Sequence[str]) -> None:
        self.values = absl_flags.FlagValues()
        self.required: list[str] = []
        self._least: dict[str, float] = {}
        self._argv = [program, *argv]

    def text(self, name: str, default: str | None, meaning: str, *, required: bool = False) -> None:
        """A flag with a text."""
        absl_flags.DEFINE_string(name, default, meaning, flag_values=self.values)
        self.required += [name] if required else []

    def texts(self, name: str, meaning: str) -> None:
        """A flag with a text that may be given several times; [] if it is not."""
        absl_flags.DEFINE_multi_string(name, [], meaning, flag_values=self.values)

    def switch(self, name: str, meaning: str, default: bool | None = False) -> None:
        """A flag that is on or off: --name, --noname."""
        absl_flags.DEFINE_bool(name, default, meaning, flag_values=self.values)

    def whole(self, name: str, default: int | None, meaning: str, least: int | None = None) -> None:
        """A flag with a whole number."""
        absl_flags.DEFINE_integer(name, default, meaning, flag_values=self.values)
        self._bound(name, least)

    def number(self, name: str, default: float | None, meaning: str, least: float | None = None) -> None:
        """A flag with a number."""
        absl_flags.DEFINE_float(name, default, meaning, flag_values=self.values)
        self._bound(name, least)

    def _bound(self, name: str, least: int | float | None) -> None:
        if least is not None:  # absl's own bounds name no remedy
            self._least[name] = least

    def config(self, meaning: str, *, required: bool) -> None:
        """--config=FILE.py and --config.option=value."""
        config_flags.DEFINE_config_file(
            "config", None, meaning, lock_config=True, flag_values=self.values, sys_argv=self._argv
        )
        self.required += ["config"] if required else []

    @property
    def asks_for_help(self) -> bool:
        """Whether --help or -h was given."""
        return not {"--help", "-h"}.isdisjoint(self._argv[1:])

    def parse(self, *, takes_rest: bool = True) -> Given:
        """The values; what stands without a flag is in `rest`, if the command `takes_rest`.

        Raises:
          UserError: a flag does not exist, is missing or has a wrong value. What can be known without the config, which
            takes seconds to load, is said before.
        """
        program = self._argv[0]
        switches = {name: bool(self.values[name].boolean) for name in self.values if "." not in name}
        words = command_line.sort_words(self._argv[1:], switches)
        command_line.check_names(words, switches, program)
        command_line.check_complete(words, self.required, program, takes_rest)
        command_line.check_config_file(words)
        try:
            rest = self.values([program, *words.options])[1:]
            for name, least in self._least.items():
                value = self.values[name].value
                if value is not None and value < least:
                    raise UserError(f"--{name}={value}: use {least:g} or more")
            if words.config:
                rest += self.values([program, *words.config])[1:]
                config = self.values["config"].value
                if config is None:
                    raise UserError(f"{words.config[0]}: its get_config() returns nothing: let it return the config")
                _ = config.name  # a file that could not be loaded says so only when it is used
        except Exception as error:  # of absl, of ml_collections, and whatever a config file does
            raise command_line.in_our_words(error, words) from error
        return Given(self.values, [*rest, *words.rest], self._argv)


def keep_compiled_programs() -> None:
    """JAX keeps compiled programs on disk, so that a restarted run need not compile; best before JAX is imported.

    JAX_COMPILATION_CACHE_DIR says where, "" nowhere; else the user's cache folder, one for each kind of processor.
    """
    try:
        kind = re.findall(r"^(?:model name|flags|Features)\s*:.*$", Path("/proc/cpuinfo").read_text(), re.M)[:2]
    except OSError:
        kind = [platform.machine(), platform.processor()]
    folder = cache_folder() / f"xla_{hashlib.sha256(repr(kind).encode()).hexdigest()[:8]}"
    where = os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
    jax = sys.modules.get("jax")  # imported before us, by somebody's program, it has not seen that
    if jax is not None and jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", where or None)


def run(name: str, argv: Sequence[str] | None = None) -> None:
    """Runs a command with its flags; bad input becomes one line on stderr and exit code 2."""
    argv = sys.argv[1:] if argv is None else argv
    keep_compiled_programs()
    print_any_text()
    logging.set_verbosity(logging.WARNING)  # Orbax reports at length on every save
    absl_flags.FLAGS.mark_as_parsed()  # libraries read absl's own flags, which nobody sets here
    command = importlib.import_module(f"larvseg_jax.commands.{name}")
    flags = Flags(name, argv)
    command.define(flags)
    takes_rest, interrupted = getattr(command, "TAKES_REST", False), getattr(command, "INTERRUPTED", _BEGINS_AGAIN)
    run_with(flags, command.main, command.__doc__, takes_rest=takes_rest, interrupted=interrupted)


def run_with(
    flags: Flags,
    main: Callable[[Given], None],
    meaning: str | None,
    *,
    takes_rest: bool = False,
    interrupted: str = _BEGINS_AGAIN,
) -> None:
    """Calls main with the values of flags, or prints `meaning` and the flags where --help stands among them."""
    if flags.asks_for_help:
        own = flags.values.get_help().partition("\nabsl.flags:")[0].replace(f"\n{__name__}:", "")
        print(f"{(meaning or '').strip()}\n{own}")
        return
    try:
        given = flags.parse(takes_rest=takes_rest)
    except UserError as error:
        fail(error)
    guarded(main, given, interrupted)


def guarded(main: Callable[[Given], None], given: Given, interrupted: str = _BEGINS_AGAIN) -> None:
    """Calls main; a UserError or an interrupt becomes one line on stderr and an exit code."""
    try:
        main(given)
    except UserError as error:
        fail(error)
    except Stopped as stopped:
        _leave(stopped.code, str(stopped))
    except KeyboardInterrupt:
        _leave(130, f"interrupted: {interrupted}")
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        fail(f"{error.filename or 'a file'} cannot be written ({error.strerror}): make room, or give another folder")


def fail(*problems: object) -> NoReturn:
    """One line on stderr for each problem, exit code 2."""
    _leave(2, *(f"error: {_in_one_line(problem)}" for problem in problems))


def _leave(code: int, *lines: str) -> NoReturn:
    """Says the lines on stderr and ends with the exit code, also where stderr is a file on a full disk."""
    with contextlib.suppress(OSError):
        for line in lines:
            print(line, file=sys.stderr)
    sys.exit(code)


def _in_one_line(problem: object) -> str:
    text = str(problem).strip()
    return printable(re.sub(r"[ \t]*[\r\n]+\s*", " ", text))  # a name keeps the two spaces it may have


def main() -> None:
    """The console command: larvseg COMMAND [--flag=value ...]."""
    name, *argv = sys.argv[1:] or ["--help"]
    name = name if name.startswith("-") else name.replace("-", "_")
    if name in ("--help", "-h", "help"):
        width = max(map(len, COMMANDS))
        lines = (f"  {command:<{width}}  {meaning}" for command, meaning in COMMANDS.items())
        print("larvseg COMMAND [--flag=value ...]        larvseg COMMAND --help lists its flags\n", *lines, sep="\n")
        return
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"use one of {', '.join(COMMANDS)}"
        fail(f"there is no command {name!r}: {hint}")
    run(name, argv)
