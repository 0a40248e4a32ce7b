"""The floors of the house: which room may import which (docs/architecture.md). Imports are read, not run."""

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

CORE = {"errors", "console", "disk", "options", "provenance"}
DATA = {"data_pipelines", "vocabulary", "text"}
METHODS = {"devices", "models", "methods"}
LIBRARY = {*CORE, *DATA, *METHODS, "old_settings", "training", "evaluation", "report", "weights"}
RUN = {*LIBRARY, "config", "assemble", "trained"}

MAY_IMPORT = {
    # Lowest: what everybody may use.
    "errors": set(),
    "disk": {"errors"},
    "console": set(),
    "options": {"errors"},
    "provenance": set(),
    "old_settings": {"errors"},
    "command_line": {"errors"},
    "cli": {"errors", "console", "command_line", "disk"},
    "vocabulary": {"errors"},
    "text": {"errors", "options"},
    # Data knows classes, not networks. `cli` is for the two `python -m data_pipelines...` commands.
    "data_pipelines": {*CORE, "vocabulary", "text", "cli"},
    # Networks, and the methods that use them.
    "devices": {"errors", "console"},
    "models": {"errors", "options", "devices", "data_pipelines"},
    "methods": {"errors", *DATA, "devices", "models"},
    "methods.larvseg": {"errors", "options", *DATA, *METHODS},
    "methods.clip": {"errors", "options", *DATA, *METHODS},
    "methods.lseg": {"errors", "options", *DATA, *METHODS},
    "methods.vilseg": {"errors", "options", *DATA, *METHODS},
    "methods.cel": {"errors", "options", *DATA, *METHODS},
    # What any method is trained, scored, shown and stored by: none knows a method by name.
    "evaluation": {*CORE, *DATA, *METHODS},
    "report": {*CORE, *DATA, *METHODS, "evaluation"},
    "training": {*CORE, *DATA, *METHODS, "report"},
    "weights": {*CORE, *DATA, *METHODS, "old_settings", "training"},
    # The only room that knows all sections of a config, and what is made of it.
    "config": {*CORE, *DATA, *METHODS, "old_settings", "training", "evaluation"},
    "stored_features": LIBRARY | {"config"},
    "assemble": LIBRARY | {"config", "stored_features"},
    "trained": LIBRARY | {"config"},
    # What people do with it.
    "show": LIBRARY | {"config"},
    "diverged": RUN,
    "features": RUN | {"cli", "stored_features", "start"},
    "start": RUN,
    "run_report": RUN,
    "compare": {*CORE, "report", "training"},
    "train": RUN | {"diverged", "start", "stored_features", "run_report"},
    "evaluate": RUN,
    "export": RUN | {"cli"},
    "import_original": RUN | {"cli"},
    "shipped": {"errors", "console", "disk"},
    "teach": RUN | {"export"},
    "pseudo_labels": RUN,
    "predict": RUN | {"cli", "shipped", "teach", "export"},
    "hub": RUN | {"export", "predict"},
    "portable": RUN,
    "demo": {*CORE, "vocabulary", "report", "predict", "shipped"},
    "page": {*CORE, "vocabulary", "report", "predict", "shipped"},
    "oracle": RUN | {"cli", "start"},
    "compile_check": RUN | {"cli"},
    "doctor": RUN | {"cli", "oracle", "start"},
    "grid": {*LIBRARY, "config", "cli"},
    "commands": RUN | {"cli", "show", "start", "train", "evaluate", "export", "import_original", "predict", "oracle"}
    | {"compile_check", "doctor", "diverged", "features", "grid", "shipped", "demo", "teach", "hub", "portable"}
    | {"page", "compare", "pseudo_labels"},
    "__main__": {"cli"},
    "larvseg_jax": {"cli", "predict"},  # its one public name
    "configs": {*CORE, *DATA, *METHODS, "training", "evaluation", "config", "grid"}
    | {"methods.larvseg", "methods.clip", "methods.lseg", "methods.vilseg", "methods.cel"},
}  # fmt: skip
"""Room -> rooms it may import. A method may be imported by its configs and its tests only."""

FILES = [
    p for folder in ("larvseg_jax", "data_pipelines", "configs") for p in sorted((REPOSITORY / folder).rglob("*.py"))
]


def room_of(module: str) -> str:
    """The room of a dotted module: a folder or file of larvseg_jax, a method, or another top-level folder."""
    package, *parts = module.split(".")
    if package != "larvseg_jax" or not parts:
        return package
    if parts[0] == "methods" and len(parts) > 1 and (REPOSITORY / "larvseg_jax/methods" / parts[1]).is_dir():
        return f"methods.{parts[1]}"
    return parts[0]


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> set[str]:
    """Dotted names of all modules of ours that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            folder = REPOSITORY / node.module.replace(".", "/")
            for alias in node.names:
                is_module = (folder / f"{alias.name}.py").is_file() or (folder / alias.name).is_dir()
                found.add(f"{node.module}.{alias.name}" if is_module else node.module)
    return {module for module in found if module.partition(".")[0] in ("larvseg_jax", "data_pipelines", "configs")}


def rooms_imported(path: Path) -> set[str]:
    return {room_of(module) for module in imported(path)} - {room_of(module_of(path))}


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_no_arrow_runs_up(path):
    room = room_of(module_of(path))
    assert room in MAY_IMPORT or path.name == "__init__.py", f"{room} is a new room: give it a floor in MAY_IMPORT"
    allowed = MAY_IMPORT.get(room, set())
    assert rooms_imported(path) <= allowed, f"{module_of(path)} imports {rooms_imported(path) - allowed}"


def test_no_two_rooms_import_each_other_and_there_is_no_circle():
    arrows: dict[str, set[str]] = {room: set() for room in MAY_IMPORT}
    for path in FILES:
        arrows.setdefault(room_of(module_of(path)), set()).update(rooms_imported(path))
    free = {room: set(rooms) for room, rooms in arrows.items()}
    while lowest := [room for room, rooms in free.items() if not rooms]:
        free = {room: rooms - set(lowest) for room, rooms in free.items() if room not in lowest}
    assert not free, f"these rooms import each other in a circle: {free}"


def test_only_what_stands_above_the_config_knows_the_whole_experiment():
    above = {"config", "assemble", "trained", "show", "diverged", "start", "train", "evaluate", "doctor"}
    above |= {"compile_check", "commands", "features", "stored_features", "oracle", "run_report", "pseudo_labels"}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "larvseg_jax.config":
                names = {alias.name for alias in node.names}
                assert "Experiment" not in names or room_of(module_of(path)) in above, module_of(path)


def test_no_method_is_known_by_name_outside_its_folder():
    """But for its configs, and the reader of the original's files, which are LarvSeg's."""
    methods = [p.name for p in (REPOSITORY / "larvseg_jax/methods").iterdir() if p.is_dir() and p.name[0] != "_"]
    assert "larvseg" in methods
    for path in FILES:
        room = room_of(module_of(path))
        for module in imported(path):
            method = room_of(module)
            if method.startswith("methods."):
                assert room in (method, "configs"), f"{module_of(path)} imports {module}"
