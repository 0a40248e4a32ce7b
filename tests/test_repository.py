"""House rules that a machine can keep: sizes, leftovers, requirements, commands of the README."""

import ast
import fnmatch
import re
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDERS = ("larvseg_jax", "data_pipelines", "configs", "benchmarks", "tests")
CODE = [
    *sorted(REPOSITORY.glob("*.py")),
    *(p for f in FOLDERS for p in sorted((REPOSITORY / f).rglob("*.py"))),
]
TEXTS = [
    *CODE,
    *(
        p
        for f in (*FOLDERS, "docs", "colabs")
        for s in ("*.md", "*.j2", "*.ipynb")
        for p in sorted((REPOSITORY / f).rglob(s))
    ),
    *(p for s in ("*.md", "*.txt", "*.toml", "Makefile", ".ci/run") for p in sorted(REPOSITORY.glob(s))),
]
MAX_LINES_OF_FILE = 350
MAX_LINES_OF_FUNCTION = 80
# In pieces, so that this file passes its own test.
LEFTOVERS = [
    "TO" + "DO",
    "FIX" + "ME",
    "XX" + "X",
    "/wo" + "rk/",
    "/tmp" + "/w/",
    "pypi" + ".org",
]


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def imported_packages(path: Path) -> set[str]:
    """Top-level names of everything that a module imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def requirement_lines(name: str) -> list[str]:
    lines = (REPOSITORY / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith(("#", "-"))]


def package_of(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement).group().lower().replace("_", "-")


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_files_and_functions_stay_short(path):
    source = path.read_text()
    assert source.count("\n") <= MAX_LINES_OF_FILE
    functions = (n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    long = {f.name: f.end_lineno - f.lineno + 1 for f in functions}
    assert not {name: lines for name, lines in long.items() if lines > MAX_LINES_OF_FUNCTION}


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_nothing_is_left_over(path):
    text = path.read_text()
    assert [word for word in LEFTOVERS if word in text] == []
    # Tests may imitate a library that raises it.
    assert name_of(path).startswith("tests/") or "raise NotImplementedError" not in text


def test_code_imports_what_the_requirements_name():
    # Name of the import where it is not the name of the package.
    imports = {
        "absl-py": "absl", "opencv-python-headless": "cv2", "orbax-checkpoint": "orbax", "pillow": "PIL",
        "pytest-xdist": "xdist",
    }  # fmt: skip
    allowed = {}
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = {
        package_of(line).replace("-", "_") for lines in project["optional-dependencies"].values() for line in lines
    }
    for name in ("requirements.txt", "requirements-dev.txt"):
        packages = [package_of(line) for line in requirement_lines(name)]
        allowed[name] = {imports.get(p, p.replace("-", "_").replace("tensorboardx", "tensorboardX")) for p in packages}
    for path in CODE:
        foreign = imported_packages(path) - sys.stdlib_module_names - {*FOLDERS, "train", path.parent.name}
        foreign -= {other.stem for other in path.parent.iterdir()}  # modules beside it
        known = allowed["requirements.txt"] | extras | {"jax2onnx"}  # installed alone (docs/exports.md)
        if name_of(path).startswith("tests/"):
            known = known | allowed["requirements-dev.txt"]
        if path.parent.name == "benchmarks" and "torch" in path.name:
            # A baseline that runs in an environment of its own.
            known = known | {"torch", "torchcodec", "torchvision", "transformers"}
        if path.name.startswith("record_"):  # recorders run in one, too
            known = known | {"torch", "timm", "transformers", "dinov2"}
        assert foreign <= known, f"{name_of(path)} imports {foreign - known}"


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_requirements_are_exact_and_give_a_reason(name):
    lines = requirement_lines(name)
    assert lines
    for line in lines:
        assert re.fullmatch(r"[\w.-]+==[\w.]+(; python_version [<>=]+ \"3\.\d+\")? +# .{8,}", line), line


def test_requirements_agree_with_constraints_and_project():
    def pins(name):
        return {
            tuple(line.partition("#")[0].strip().lower().replace("_", "-").split(";"))
            for line in requirement_lines(name)
        }

    ours = pins("requirements.txt") | pins("requirements-dev.txt")
    assert ours <= pins("constraints.txt")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    # A bound from above, where there is one, is not pinned.
    lowest = {package_of(d): d.partition(">=")[2].partition(",")[0] for d in project["dependencies"]}
    pinned = {}
    for pin in sorted(p[0] for p in pins("requirements.txt")):
        package, _, version = pin.partition("==")
        pinned.setdefault(package, version)  # of two jax versions the older one
    assert lowest == pinned


def test_every_python_package_and_its_other_files_are_in_the_distribution():
    setuptools = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]
    include, data = setuptools["packages"]["find"]["include"], setuptools["package-data"]
    names = ("larvseg_jax", "data_pipelines", "configs")
    folders = {p.parent for name in names for p in (REPOSITORY / name).rglob("*.py")}
    for folder in sorted(folders):
        package = name_of(folder).replace("/", ".")
        assert any(fnmatch.fnmatchcase(package, pattern) for pattern in include), package
        assert (folder / "__init__.py").is_file(), f"{package} is not found without an __init__.py"
    for other in ("benchmarks", "tests", "tests.configs", "tests.data_pipelines"):
        assert not any(fnmatch.fnmatchcase(other, pattern) for pattern in include), other
    files = {p for name in names for p in (REPOSITORY / name).rglob("*.*") if p.suffix not in (".py", ".pyc")}
    given = {p for name, globs in data.items() for glob in globs for p in (REPOSITORY / name).glob(glob)}
    assert files == {p for p in given if p.suffix != ".pyc"}


def readme_commands() -> list[str]:
    readme = REPOSITORY / "README.md"
    blocks = re.findall(r"```(?:bash|sh|console)\n(.*?)```", readme.read_text(), re.S) if readme.exists() else []
    lines = (line.strip().removeprefix("$ ") for block in blocks for line in block.replace("\\\n", " ").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("command", readme_commands())
def test_readme_commands_exist(command):
    for target in re.findall(r"\bmake ((?:[a-z][\w-]*)(?: [a-z][\w-]*)*)", command):
        rules = re.findall(r"^([a-z][\w-]*):", (REPOSITORY / "Makefile").read_text(), re.M)
        assert set(target.split()) <= set(rules)
    for module in re.findall(r"python3? -m ((?:larvseg_jax|data_pipelines)[\w.]*)", command):
        path = REPOSITORY / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
    for script in re.findall(r"python3? ([\w/]+\.py)", command):
        assert (REPOSITORY / script).exists(), script
    for config in re.findall(r"--config[= ]([\w/]+\.py)", command):
        assert (REPOSITORY / config).exists(), config
    for file in re.findall(r"-r ([\w.-]+\.txt)", command):
        assert (REPOSITORY / file).exists(), file
