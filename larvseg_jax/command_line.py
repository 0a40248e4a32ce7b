"""What is wrong with a command line, in the words of who typed it: one line with the option, its value and the remedy.

Parsing is absl's and ml_collections'; here is looked before them, since they load the config first, and their errors
are put into our words afterwards.
"""

from __future__ import annotations

import difflib
import re
import runpy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from larvseg_jax.errors import UserError

_OF_ABSL = ("flagfile", "undefok")
_WANTED = {  # how absl and ml_collections complain about a value -> what it must be
    "invalid literal for int": "it must be a whole number",
    "could not convert string to float": "it must be a number",
    "'Non-boolean argument": "it must be true or false",
    "as a ConfigDict": "it is a section: set one of its options, {name}.OPTION=VALUE",
}


class Words(NamedTuple):
    """A command line in three parts, each in its order: config and its options, other options, what stands alone."""

    config: list[str]
    options: list[str]
    rest: list[str]


def sort_words(argv: Sequence[str], switches: Mapping[str, bool]) -> Words:
    """Takes a command line apart. `switches`: the options there are -> whether they are on or off and take no value."""
    found, left = Words([], [], []), list(argv)
    while left:
        word = left.pop(0)
        if word == "--":
            return Words(found.config, found.options, [*found.rest, *left])
        if not re.match(r"--?[A-Za-z_]", word):
            found.rest.append(word)
            continue
        name, equals, _ = word.lstrip("-").partition("=")
        is_config = "config" in switches and re.match(r"(no)?config(\.|$)", name) is not None
        part = found.config if is_config else found.options
        part.append(word)
        takes_value = not switches.get(name, True) or (name not in switches and is_config and left[:1] != [])
        if equals or not takes_value or (name not in switches and left[0].startswith("-")):
            continue
        if not left:
            raise UserError(f"{word} has no value: give {word}=VALUE")
        part.append(left.pop(0))
    return found


def check_names(words: Words, switches: Mapping[str, bool], program: str) -> None:
    """UserError for an option that does not exist, with those that may be meant."""
    for name in (word.lstrip("-").partition("=")[0] for word in words.options if word.startswith("-")):
        if name in (*switches, *_OF_ABSL) or (name.startswith("no") and switches.get(name.removeprefix("no"))):
            continue
        head, dot, tail = name.partition(".")
        close = difflib.get_close_matches(head, switches, n=3)
        if dot and "config" in close:
            close = [f"config.{tail}"]
        if close:
            hint = f"did you mean {' or '.join(f'--{other}' for other in close)}?"
        elif "config" in switches:
            hint = f"options of the config are given as --config.{name}=, those of {program} are in its --help"
        else:
            hint = f"{program} has {', '.join(f'--{other}' for other in sorted(switches)) or 'no options'}"
        raise UserError(f"there is no option --{name}: {hint}")


def check_complete(words: Words, required: Sequence[str], program: str, takes_rest: bool) -> None:
    """UserError for a required option that is missing; a word without an option is perhaps its value."""
    given = {word.lstrip("-").partition("=")[0] for word in (*words.config, *words.options) if word.startswith("-")}
    missing = [name for name in required if name not in given]
    alone = [] if takes_rest else words.rest
    if missing and alone:
        raise UserError(f"{alone[0]!r} stands without an option: did you mean --{missing[0]}={alone[0]}?")
    if missing:
        raise UserError(f"--{missing[0]} is missing: {program} --help lists the flags")
    if alone:
        raise UserError(f"unexpected argument {alone[0]!r}: options start with --")


def check_config_file(words: Words) -> None:
    """UserError if there is no such config file, with the nearest names; or if options are given without one."""
    path = config_path(words)
    if path is None:
        if words.config:
            raise UserError(
                f"{words.config[0]} changes an option of a config, but there is none: give --config=FILE.py"
            )
        return
    file = Path(path)
    if file.is_file():
        return
    configs = [p for folder in (file.parent, Path("configs")) for p in sorted(folder.glob("*.py")) if p.stem[0] != "_"]
    if file.is_dir():
        inside = [p for p in sorted(file.glob("*.py")) if p.stem[0] != "_"]
        remedy = f"give a file in it, such as {(inside or configs or [file / 'x.py'])[0]}"
        raise UserError(f"--config={path} is a folder: {remedy}")
    by_name = {p.stem: p for p in reversed(configs)}
    close = [str(by_name[stem]) for stem in difflib.get_close_matches(file.stem, by_name, n=3)]
    hint = (
        f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(map(str, configs)) or 'none here'}"
    )
    raise UserError(f"there is no config {path}: {hint}")


def config_path(words: Words) -> str | None:
    """The file that --config names, without its arguments."""
    for place, word in enumerate(words.config):
        if re.fullmatch(r"--?config", word):
            return words.config[place + 1].partition(":")[0]
        if re.match(r"--?config=", word):
            return word.partition("=")[2].partition(":")[0]
    return None


def in_our_words(error: Exception, words: Words) -> UserError:
    """An error of absl, ml_collections or of a config file, with the option, its value and what it must be."""
    if isinstance(error, UserError):
        return error
    text, path = str(error), config_path(words)
    if path is not None and isinstance(error, AttributeError | KeyError | TypeError):
        found = _misspelt_option(words)
        if found is not None:
            return found
    for complaint, wanted in _WANTED.items():
        match = re.match(r"flag (--[\w.]+)=(.*?): ", text, re.S)
        if match and complaint in text:
            return UserError(f"{match[1]}={match[2]}: {wanted.format(name=match[1])}")
    if "Missing value for flag" in text:
        option = text.split()[-1]
        return UserError(f"{option} has no value: give {option}=VALUE")
    if "before a value for --config" in text:
        return UserError(f"{text.split()[1]} stands before the config: give --config first")
    last = text.strip().splitlines()[-1] if text.strip() else type(error).__name__
    if "Error whilst parsing config file" in text:
        return UserError(f"--config={path}: {re.sub(r'^(ValueError|TypeError): ', '', last)}")
    if "Configuration is not available" in text:
        return UserError(f"--config={path}: {text.partition('failure to load: ')[2]}")
    if isinstance(error, SyntaxError):
        return UserError(f"{path}, line {error.lineno}, is not Python ({error.msg}): give a config, or mend it")
    if path is not None and not text.startswith("flag --"):
        return UserError(f"--config={path}: {type(error).__name__}: {last}")
    return UserError(last)


def _misspelt_option(words: Words) -> UserError | None:
    """The option that a config does not have, if there is one among those given."""
    match = re.match(r"--?config(?:=|$)(.*)", words.config[0], re.S)
    given = match[1] if match and match[1] else words.config[1]
    path, colon, arguments = given.partition(":")
    try:
        config = runpy.run_path(path)["get_config"](*([arguments] if colon else []))
    except Exception:  # the config itself is wrong, which is said
        return None
    for word in words.config:
        name = word.lstrip("-").partition("=")[0]
        dotted = name.removeprefix("no").removeprefix("config.") if name.startswith("noconfig.") else name[7:]
        section: Any = config
        parts = dotted.split(".") if dotted and "config." in name else []
        for depth, part in enumerate(parts):
            if not hasattr(section, "keys"):
                return UserError(f"--config.{'.'.join(parts[:depth])} is a value and no section: it has no {part!r}")
            if part not in section:
                return UserError(f"there is no option --config.{dotted}: {_hint(config, section, parts[:depth], part)}")
            section = section[part]
    return None


def _hint(config: Any, section: Any, above: list[str], part: str) -> str:
    """Options that may be meant: of the same section, else of that name anywhere."""
    close = [".".join((*above, name)) for name in difflib.get_close_matches(part, list(section), n=3)]
    close = close or [name for name in _all_options(config) if name.rpartition(".")[2] == part][:3]
    if close:
        return f"did you mean {' or '.join(f'--config.{name}' for name in close)}?"
    return f"{'.'.join(above) or 'the config'} has {', '.join(section)}"


def _all_options(section: Any, prefix: str = "") -> Iterator[str]:
    for name in section:
        yield f"{prefix}{name}"
        if hasattr(section[name], "keys"):
            yield from _all_options(section[name], f"{prefix}{name}.")
