"""From a grid's file to the trainings it needs."""

import importlib
from pathlib import Path

import pytest

from larvseg_jax.cli import Flags
from larvseg_jax.config import from_config
from larvseg_jax.errors import UserError
from larvseg_jax.grid.description import Grid, Row, Table, load_grid
from larvseg_jax.grid.plan import plan

# ml_collections loads config files in a way that Python will drop.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

REPOSITORY = Path(__file__).parents[2]
GRIDS = sorted((REPOSITORY / "configs" / "grids").glob("[a-z]*.py"))
TINY = "tests/tiny.py"


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch):
    """Grids name their configs as people do."""
    monkeypatch.chdir(REPOSITORY)


def resolved(flags):
    """The config that train.py makes of these flags."""
    parser = Flags("train", list(flags))
    parser.config("x", required=True)
    return from_config(parser.parse().config)


def table(*rows: Row, name: str = "t") -> Table:
    return Table(name, "Title", rows, reference=rows[0].name)


def grid_file(folder, body: str) -> str:
    (folder / "g.py").write_text(f"from larvseg_jax.grid.description import Grid, Row, Table\n{body}\n")
    return str(folder / "g.py")


def test_a_config_in_several_rows_is_trained_once_for_each_seed(tmp_path):
    plain, other = Row("plain", TINY), Row("fewer slots", TINY, {"method.ca_classifier.memory_bank_size": 2})
    said = Row("said", TINY, {"method.ca_classifier.memory_bank_size": 3})  # which is what tests/tiny.py has
    grid = Grid((table(plain, other), table(said, name="u")), seeds=(4, 7))
    found = plan(grid, tmp_path)
    assert found.jobs["t", "plain", 4] == found.jobs["u", "said", 4]
    assert [(job.row.name, job.seed) for job in found.needed()] == [
        *(("plain", 4), ("fewer slots", 4)),
        *(("plain", 7), ("fewer slots", 7)),
    ]
    assert [(job.row.name, job.seed) for job in found.needed("u")] == [("plain", 4), ("plain", 7)]
    assert len({job.folder for job in found.needed()}) == 4
    assert {job.total_steps for job in found.needed()} == {12}
    assert {job.evaluation for job in found.needed()} == {"val"}


def test_a_run_gets_the_options_of_its_row_and_a_folder_of_its_own(tmp_path):
    row = Row("r", TINY, {"streams.masks.classes": ("background", "red"), "optimizer.learning_rate": 0.5})
    job = plan(Grid((table(row),), seeds=(3,)), tmp_path).jobs["t", "r", 3]
    run = resolved(job.flags)
    assert run.streams["masks"].classes == ("background", "red")
    assert (run.optimizer.learning_rate, run.seed, run.workdir, run.name) == (0.5, 3, job.folder, job.folder.name)
    assert job.folder.parent == tmp_path


def test_options_for_all_rows_give_way_to_those_of_a_row(tmp_path):
    rows = Row("a", TINY), Row("b", TINY, {"total_steps": 7})
    grid = Grid((table(*rows),), seeds=(0,)).with_options({"total_steps": "9", "model.width": "8"})
    runs = [resolved(grid_job.flags) for grid_job in plan(grid, tmp_path).needed()]
    assert [(run.total_steps, run.vit.width) for run in runs] == [(9, 8), (7, 8)]


@pytest.mark.parametrize(
    ("option", "value", "is_other"),
    [("data_root", "elsewhere", False), ("name", "x", False), ("log_every", 7, True), ("total_steps", 13, True)],
)
def test_what_lies_elsewhere_is_the_same_config(tmp_path, option, value, is_other):
    found = plan(Grid((table(Row("a", TINY), Row("b", TINY, {option: value})),), seeds=(0,)), tmp_path)
    assert (len(found.needed()) == 2) is is_other


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (Row("a", "configs/none.py"), "table t, row 'a': there is no config configs/none.py"),
        (Row("a", TINY, {"total_stepz": 1}), "table t, row 'a': there is no option --config.total_stepz"),
        (Row("a", TINY, {"log_every": 0}), "table t, row 'a': log_every is 0: use 1 or more"),
        (Row("a", TINY, {"evals": {}}), "table t, row 'a'"),
    ],
)
def test_a_row_that_cannot_be_is_named(tmp_path, row, message):
    with pytest.raises(UserError, match=message) as error:
        plan(Grid((table(row),)), tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def get_grid(): return 3", "its get_grid.* returns a int: let it return a Grid"),
        ("x = 1", "has no 'get_grid': a grid has a function get_grid"),
        ("def get_grid(:", "line 2, is not Python"),
        ("def get_grid(): return Grid(())", "has no tables or no seeds"),
        ("def get_grid(): return open('/nowhere/x')", "FileNotFoundError"),
        ("def get_grid(): return Grid((Table('t', 'T', (Row('a', 'x'),), 'b'),))", "its reference 'b' is no row"),
        ("def get_grid(): return Grid((Table('t', 'T', (Row('a', 'x'),) * 2, 'a'),))", "row 'a' is there twice"),
        ("def get_grid(): return Grid((Table('t/u', 'T', (Row('a', 'x'),), 'a'),))", "'t/u' has no name for a file"),
        ("def get_grid(): return Grid((Table('t', 'T', (Row('a', 'x'),), 'a'),), (1, 1))", "seed 1 is there twice"),
    ],
)
def test_a_file_that_is_no_grid_is_one_line(tmp_path, body, message):
    with pytest.raises(UserError, match=message) as error:
        load_grid(grid_file(tmp_path, body))
    assert "\n" not in str(error.value)
    assert "g.py" in str(error.value)


def test_a_missing_file_is_one_line_with_those_that_are_there():
    with pytest.raises(UserError, match="there is no grid configs/grids/voc.py: there are .*voc_animals.py"):
        load_grid("configs/grids/voc.py")


def test_the_argument_of_a_grid_is_given_to_it(tmp_path):
    file = grid_file(tmp_path, "def get_grid(c='d'): return Grid((Table('t', 'T', (Row('a', c),), 'a'),))")
    assert load_grid(file).tables[0].rows[0].config == "d"
    assert load_grid(f"{file}:x.py:y").tables[0].rows[0].config == "x.py:y"


@pytest.mark.parametrize("path", [p for p in GRIDS if p.stem != "small_photos"], ids=lambda p: p.stem)
def test_the_grids_that_are_there_can_be_trained(path, tmp_path):
    grid = load_grid(str(path))
    assert len(grid.seeds) >= 5
    found = plan(grid, tmp_path)
    for job in found.needed():
        if job.seed == grid.seeds[0]:
            run = resolved(job.flags)
            least = min(s.view.crop_size for s in run.streams.values()) // run.vit.patch_size
            assert run.method.ca_classifier.foreground_topk <= least**2, job  # else training refuses it


def test_novel_classes_are_learnt_from_masks_in_the_row_that_says_so_and_in_no_other(tmp_path):
    for name in ("voc_animals", "clothing"):
        novel = set(importlib.import_module(f"configs.{name}").NOVEL)
        found = plan(load_grid(f"configs/grids/{name}.py"), tmp_path)
        for (of, row, seed), job in found.jobs.items():
            if seed == 0:
                run = resolved(job.flags)
                known = set(run.streams["masks"].classes)
                assert (novel <= known) == (row == "masks of all classes, no tags"), (of, row)
                assert novel <= known or not novel & known


def test_the_quickstart_grid_has_no_object_pictures_where_its_row_says_so(tmp_path):
    found = plan(load_grid("configs/grids/quickstart.py"), tmp_path)
    streams = {row: set(resolved(job.flags).streams) for (of, row, _), job in found.jobs.items() if of == "objects"}
    assert streams["baseline"] == streams["LarvSeg"] == {"masks", "tags"}
    assert streams["baseline, with objects"] == streams["LarvSeg, with objects"] == {"masks", "tags", "objects"}
