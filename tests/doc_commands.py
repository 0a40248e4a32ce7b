"""The command lines of README.md and docs/*.md: found, and taken apart."""

import importlib
import re
import shlex
from pathlib import Path
from typing import NamedTuple

from larvseg_jax import cli

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
_PROGRAM = r"(?:\w+=\S+ )*(?:time )?(?:python3? |make |pip |source |larvseg |train\.py|evaluate\.py)"


class Line(NamedTuple):
    """A command line.

    Attributes:
      page: file it stands in.
      text: as printed, without its comment, lines joined, options in brackets given.
      whole: False where it stands in running text, which may leave out what does not matter there.
    """

    page: str
    text: str
    whole: bool


def lines_of(page: Path) -> list[Line]:
    """All command lines of a page, in its order: of bash blocks, of indented ones, and of running text and tables."""
    found: list[tuple[int, str, bool]] = []  # place, text, whether it is whole
    text = page.read_text()
    for block in re.finditer(r"^```bash\n(.*?)^```", text, re.M | re.S):
        for line in re.finditer(r"(?:.*\\\n)*.*", block[1]):
            text_of_line = line[0].replace("\\\n", " ")
            found.append((block.start(1) + line.start(), re.sub(r"\s+#.*", "", text_of_line), True))
    rest = re.sub(r"^```.*?^```", lambda fence: re.sub(r"\S", " ", fence[0]), text, flags=re.M | re.S)
    for line in re.finditer(rf"^    ({_PROGRAM}.*?)(?: {{3,}}.*)?$", rest, re.M):
        found.append((line.start(), line[1], True))
    for code in re.finditer(rf"`({_PROGRAM}[^`]*)`", rest):
        found.append((code.start(), " ".join(code[1].split()), False))
    found = [(place, re.sub(r"\[(--[^\]]+)\]", r"\1", line).strip(), whole) for place, line, whole in sorted(found)]
    return [Line(page.name, " ".join(line.split()), whole) for _, line, whole in found if line.strip()]


def words_of(line: Line) -> list[str]:
    """The words of a command, without environment variables and `time`."""
    words = shlex.split(line.text)
    while re.fullmatch(r"[A-Z_]+=.*|time", words[0]):
        words = words[1:]
    return ["python", *words] if words[0] in ("train.py", "evaluate.py") else words


def command_of(words: list[str]) -> tuple[str, list[str]] | None:
    """(command of larvseg_jax/cli.py, its arguments), if it is one; whatever way it is called."""
    if words[0] == "larvseg":
        return words[1], words[2:]
    if words[0] != "python" or words[1:] == ["-m", "larvseg_jax"]:  # the second lists the commands
        return None
    if words[1] != "-m":
        source, rest = (REPOSITORY / words[1]).read_text(), words[2:]
    elif words[2] == "larvseg_jax":
        return words[3], words[4:]
    else:
        source, rest = module_file(words[2]).read_text(), words[3:]
    called = re.search(r'^if __name__ == "__main__":\n    cli\.run\("(\w+)"\)', source, re.M)
    return (called[1], rest) if called else None


def module_file(name: str) -> Path:
    """The file that `python -m name` runs."""
    path = REPOSITORY / name.replace(".", "/")
    return path / "__main__.py" if path.is_dir() else path.with_suffix(".py")


def flags_of(command: str, arguments: list[str]) -> cli.Flags:
    """The flags of a command, not parsed yet."""
    flags = cli.Flags(command, arguments)
    importlib.import_module(f"larvseg_jax.commands.{command}").define(flags)
    return flags
