"""Every command line of README.md and docs/ is one that the programs take; test_first_hour.py runs them."""

import functools
import re
from pathlib import Path

import pytest

from configs import common
from data_pipelines.prepare import BUILDERS
from data_pipelines.scenes import streets
from larvseg_jax import cli
from larvseg_jax.config import from_config
from larvseg_jax.options import flat
from tests.configs.test_own_data import block, make_pictures
from tests.doc_commands import PAGES, REPOSITORY, Line, command_of, flags_of, lines_of, module_file, words_of

# ml_collections loads config files in a way that Python will drop.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

LINES = [line for page in PAGES for line in lines_of(page)]
MAKEFILE = (REPOSITORY / "Makefile").read_text()
# What running text leaves out, and what stands for a number there.
CONFIG = "--config=configs/quickstart.py"
NUMBERS = {"N": "2", "I": "1", "S": "1"}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A folder like the repository, with the pictures of docs/own_data.md in it."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    make_pictures(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streets, "VALIDATION", 1)
        streets.write_streets(folder / "streets", 1, 8)
    for file in ("mydata/classes.txt", "mydata/tagged/tags.csv"):
        (folder / file).write_text(block("text", file))
    return folder


@functools.cache
def config_is_complete(command: str, *arguments: str) -> None:
    """Not anew for commands of the same config."""
    from_config(flags_of(command, list(arguments)).parse().config)


def check_ours(name: str, arguments: list[str], whole: bool) -> None:
    """Flags, config and options of one of our commands."""
    arguments = [re.sub(r"(?<==)[NIS]$", lambda letter: NUMBERS[letter[0]], word) for word in arguments]
    if not whole:
        given = {word.partition("=")[0] for word in arguments}
        required = [flag for flag in flags_of(name, []).required if f"--{flag}" not in given]
        arguments += [CONFIG if flag == "config" else f"--{flag}=x" for flag in required]
    given = flags_of(name, arguments).parse()
    takes_rest = getattr(__import__(f"larvseg_jax.commands.{name}", fromlist=["x"]), "TAKES_REST", False)
    assert takes_rest or not given.rest
    if name == "prepare":
        assert given.rest[0] in BUILDERS
    if any(word.startswith("--config=") for word in arguments):
        config_is_complete("train", *(word for word in arguments if word.startswith("--config")))


def check_script(words: list[str]) -> None:
    """A module with a command line of its own: a benchmark, a tool of the tests."""
    assert words[1] == "-m", words
    source = module_file(words[2]).read_text()
    assert '__name__ == "__main__"' in source
    source += "".join(module_file(part).read_text() for part in re.findall(r"from (benchmarks\._\w+) import", source))
    defined = set(re.findall(r'add_argument\("--(\w+)"|found\.\w+\("(\w+)"', source))
    defined = {name for names in defined for name in names} | ({"config"} if "found.config(" in source else set())
    assert {word[2:].partition("=")[0].partition(".")[0] for word in words[3:] if word.startswith("--")} <= defined


def parameter(line: Line):
    slow = [pytest.mark.slow] if "c171_i21k" in line.text else []  # its class lists take seconds
    return pytest.param(line, id=f"{line.page}: {line.text}", marks=slow)


@pytest.mark.parametrize("line", [parameter(line) for line in dict.fromkeys(LINES)])
def test_a_command_is_taken_as_printed(line: Line, checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    words = words_of(line)
    if ours := command_of(words):
        check_ours(*ours, line.whole)
    elif words[0] == "python":
        check_script(words)
    elif words[0] == "make":
        for word in words[1:]:
            name = word.partition("=")[0]
            assert re.search(rf"^{name}:" if name == word else rf"\$\({name}\)", MAKEFILE, re.M), word
    elif words[0] == "pip":
        assert words[1] == "install"
        given = [words[i + 1].partition("[")[0] for i, word in enumerate(words) if word in ("-r", "-e")]
        assert all((REPOSITORY / path).exists() for path in given)
    else:
        assert words == ["source", ".venv/bin/activate"]
        assert "VENV ?= .venv\n" in MAKEFILE


def test_every_kind_of_place_is_found():
    pages = {line.page for line in LINES}
    assert {"README.md", "doctor.md", "predict.md", "weights.md", "data.md", "performance.md", "results.md"} <= pages
    long = [line.text for line in LINES if line.page == "scaling.md" and "--topology=v5e:4x8" in line.text]
    assert long == [long[0]]
    assert long[0].endswith("--quick --json=FILE")  # two lines as one, brackets taken off


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_flags_that_the_text_names_exist(page):
    flags = {name for command in cli.COMMANDS for name in flags_of(command, []).values}
    options = set(flat(common.get_config().to_dict())) | {f"streams.{name}" for name in common.tag_stream()}
    sections = {re.sub(r"\.\w+$", "", option) for option in options}
    sources = "".join(p.read_text() for p in REPOSITORY.glob("benchmarks/*.py"))
    of_scripts = set(re.findall(r'(?:add_argument\("--|found\.\w+\(")(\w+)', sources))
    for name in re.findall(r"`--([\w.]+)", page.read_text()):
        if name.startswith("config."):
            assert name.removeprefix("config.") in options | sections or name == "config.option", name
        else:
            assert name in flags | of_scripts or name.removeprefix("no") in flags, name
