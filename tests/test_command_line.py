"""Slips on the command line: one line in the words of who typed it, before JAX is loaded where it can be."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from larvseg_jax import cli
from tests.doc_commands import REPOSITORY, flags_of

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
CONFIG = "--config=configs/quickstart.py"

# (command, arguments) -> what the line says. These need neither a config nor a model, hence no JAX.
AT_ONCE = {
    ("train", "--config=configs/quikstart.py"): "no config configs/quikstart.py: did you mean configs/quickstart.py?",
    ("train", "--config=quickstart"): "there is no config quickstart: did you mean configs/quickstart.py?",
    ("train", "--config=configs"): "--config=configs is a folder: give a file in it, such as configs/a150.py",
    ("train", "--config=notes.txt"): "notes.txt, line 1, is not Python",
    ("train", "--config"): "--config has no value: give --config=VALUE",
    ("train", ""): "--config is missing",
    ("train", "--config.seed=1"): "--config is missing",
    ("evaluate", "--run=runs/x --config.seed=1"): "--config.seed=1 changes an option of a config, but there is none",
    ("train", "configs/quickstart.py"): "did you mean --config=configs/quickstart.py?",
    ("train", f"{CONFIG} surplus"): "unexpected argument 'surplus'",
    ("train", "--confg=x.py"): "there is no option --confg: did you mean --config?",
    ("train", f"{CONFIG} --conf.seed=3"): "did you mean --config.seed?",
    ("train", f"{CONFIG} --workdir=runs/x"): "no option --workdir: options of the config are given as --config.work",
    ("train", f"{CONFIG} --show=maybe"): "--show=maybe: it must be true or false",
    ("train", f"{CONFIG} --num_processes=two"): "--num_processes=two: it must be a whole number",
    ("train", f"{CONFIG} --accept"): "--accept has no value",
    ("evaluate", "runs/x"): "'runs/x' stands without an option: did you mean --run=runs/x?",
    ("evaluate", "--run=runs/xx"): "is no run and no checkpoint: did you mean HERE/runs/x,",
    ("evaluate", "--run=runs"): "did you mean HERE/runs/x,",
    ("evaluate", "--run=runs/x/checkpoints"): "did you mean HERE/runs/x,",
    ("evaluate", "--run=notes.txt"): "notes.txt is no model: give the folder of a run",
    ("evaluate", "--run=none.safetensors"): "there is no file none.safetensors",
    ("evaluate", "--run=runs/x --step=7"): "runs/x has no checkpoint of step 7: it has [20, 800]",
    ("evaluate", "--run=runs/x --step=-1"): "--step=-1: use 0 or more",
    ("evaluate", "--run=runs/x --step=last"): "--step=last: it must be a whole number",
    ("evaluate", "--run=runs/x --data_root=none"): "--data_root=none does not exist",
    ("evaluate", "--run=runs/x --data_root=notes.txt"): "--data_root=notes.txt is a file",
    ("predict", "--run=runs/x --imge=a.jpg"): "there is no option --imge: did you mean --image?",
    ("predict", "--run=runs/x --image=none.jpg"): "there is no picture none.jpg",
    ("predict", "--run=runs/x --image=photo.jpg --step=7"): "runs/x has no checkpoint of step 7",
    ("predict", "--run=runs/x --model=runs/x --image=photo.jpg"): "--model and --run are the same: give one of the two",
    ("predict", "--run=runs/x photo.jpg --excludes=cat"): "there is no option --excludes: did you mean --exclude?",
    ("predict", "photo.jpg"): "--model is missing: give the folder of a run",
    ("predict", "--run=runs/x photo.jpg --format=coco,voc"): "--format=voc is not known: use coco, labelstudio",
    ("predict", "--model=runs/x https://x.org/a.jpg"): "is an address and no file: download it first",
    ("predict", "--run=runs/x --image=photo.jpg --scale=0,0"): "--scale=0,0: give two sides in pixels",
    ("predict", "--run=runs/x --image=photo.jpg --memory_gb=lots"): "--memory_gb=lots: it must be a number",
    ("predict", "--run=runs/x --image=photo.jpg --memory_gb=-1"): "--memory_gb=-1.0: use 0 or more",
    ("export", "--run=runs/x --out=model.npz"): "--out=model.npz cannot be written: give a name that ends in .safet",
    ("export", "--run=runs/x --out=notes.txt/m.safetensors"): "--out=notes.txt/m.safetensors cannot be written (",
    ("export", "--run=runs/x --step=7 --out=m.safetensors"): "runs/x has no checkpoint of step 7",
    ("import_original", "--file=notes.txt --out=model.npz"): "--out=model.npz cannot be written",
    ("import_original", "--file=notes.txt --out=m.safetensors --heads=0"): "--heads=0: use 1 or more",
    ("oracle", "--run=runs/x --data=d --class_list=ade20k_15"): "there is no class list 'ade20k_15'",
    ("oracle", "--run=runs/y --data=d --class_list=voc_20"): "is no run and no checkpoint",
    ("doctor", f"{CONFIG} --fulll"): "there is no option --fulll: did you mean --full?",
    ("doctor", f"{CONFIG} --photos=0"): "--photos=0: use 1 or more",
    ("teach", "mug --model=runs/x --image=photo.jpg --point=1,1 --out=m.safetensors"): "photo.jpg",
    ("teach", "mug --model=runs/x --image=photo.jpg --point=1 --out=m.safetensors"): "--point=1 is no point",
    ("teach", "mug --model=runs/xx --image=photo.jpg --point=1,1 --out=m.safetensors"): "did you mean HERE/runs/x,",
    ("teach", "--model=runs/x --image=photo.jpg --point=1,1 --out=m.safetensors"): "there is none",
    ("vocab", ""): "vocab does not know '': give search TEXT or list [NAME] or tree SYNSET",
    ("vocab", "searchh dog"): "vocab does not know 'searchh': did you mean search?",
    ("vocab", "tree"): "vocab tree needs a word: give vocab tree SYNSET",
    ("vocab", "list ade20k"): "there is no class list 'ade20k': use one of ade20k_150",
    ("vocab", "tree dog.n.01 --depth=-1"): "--depth=-1: use 0 or more",
    ("vocab", "tree dog.n.01 --model=runs/xx"): "is no run and no checkpoint: did you mean HERE/runs/x,",
    ("vocab", "list --model=runs/x --step=7"): "runs/x has no checkpoint of step 7",
    ("replay", "--step=3"): "there is no option --step: replay has no options",
}  # fmt: skip

# These load a config, which imports JAX, but look for no device and open no data.
OF_A_CONFIG = {
    ("train", f"{CONFIG} --config.sed=1"): "there is no option --config.sed: did you mean --config.seed?",
    ("train", f"{CONFIG} --config.learning_rate=1"): "did you mean --config.optimizer.learning_rate?",
    ("train", f"{CONFIG} --config.streams.mask.batch_size=4"): "did you mean --config.streams.masks?",
    ("train", f"{CONFIG} --noconfig.model.rema"): "did you mean --config.model.remat?",
    ("train", f"{CONFIG} --config.seed.x=4"): "--config.seed is a value and no section",
    ("train", f"{CONFIG} --config.seed=1.5"): "--config.seed=1.5: it must be a whole number",
    ("train", f"{CONFIG} --config.optimizer.learning_rate=fast"): "learning_rate=fast: it must be a number",
    ("train", f"{CONFIG} --config.model.remat=maybe"): "--config.model.remat=maybe: it must be true or false",
    ("train", f"{CONFIG} --config.streams.masks=4"): "--config.streams.masks=4: it is a section",
    ("train", f"{CONFIG} --config.seed"): "--config.seed has no value: give --config.seed=VALUE",
    ("train", f"--config.seed=1 {CONFIG}"): "--config.seed=1 stands before the config: give --config first",
    (
        "train",
        f"{CONFIG}:larvseq",
    ): "--config=configs/quickstart.py: config argument 'larvseq': use larvseg or baseline",
    ("train", f"{CONFIG} --profile=20"): "--profile=20: give START:STOP",
    ("train", f"{CONFIG} --config.pretrained=none.npz"): "there is no file none.npz: a published one is at",
    ("train", f"{CONFIG} --config.pretrained=runs"): "did you mean HERE/runs/x,",
    ("train", f"{CONFIG} --config.workdir=runs/x"): "runs/x holds the run 'x', and this is 'quickstart': give this one",
    ("doctor", f"{CONFIG} --out=notes.txt/doctor.html"): "--out=notes.txt/doctor.html cannot be written (",
    ("doctor", f"{CONFIG} --json=configs"): "--json=configs is a folder",
    ("compile_check", f"{CONFIG} --topology=v5e:2x2 --mesh=3"): "--mesh='3' is no mesh",
    ("compile_check", f"{CONFIG} --topology=v5e:2x2 --json=notes.txt/a.json"): "--json=notes.txt/a.json cannot be",
}

ROWS = {**AT_ONCE, **OF_A_CONFIG}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder with configs/, a run runs/x that has two checkpoints, a photo and a file of another kind."""
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    for step in (20, 800):
        (tmp_path / "runs" / "x" / "checkpoints" / str(step)).mkdir(parents=True)
    (tmp_path / "runs" / "x" / "config.json").write_text(json.dumps({"name": "x"}))
    (tmp_path / "photo.jpg").write_bytes(b"any")
    (tmp_path / "notes.txt").write_text("these are notes\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def answer(name: str, arguments: str) -> list[str]:
    """What a command writes to stderr before it leaves with 2."""
    printed = io.StringIO()
    with contextlib.redirect_stderr(printed), pytest.raises(SystemExit) as left:
        cli.run(name, arguments.split())
    assert left.value.code == 2
    return printed.getvalue().splitlines()


@pytest.mark.parametrize(("given", "said"), [pytest.param(*row, id=" ".join(row[0])) for row in ROWS.items()])
def test_a_slip_is_answered_in_one_line(given, said, here):
    (line,) = answer(*given)
    assert line.startswith("error: ")
    assert said.replace("HERE", str(here)) in line


def test_what_needs_no_config_is_answered_without_jax(here):
    code = f"""
import contextlib, io, sys
from larvseg_jax import cli
for name, arguments in {list(AT_ONCE)!r}:
    with contextlib.redirect_stderr(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        cli.run(name, arguments.split())
    assert printed.getvalue().startswith("error: "), (name, arguments)
    assert "jax" not in sys.modules, (name, arguments)
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(REPOSITORY)})


def test_other_ways_to_write_options_are_taken():
    path = str(REPOSITORY / "configs" / "quickstart.py")
    arguments = ["--config", path, "--config.seed", "3", "--noconfig.model.remat", "--accept", "data", "--show"]
    given = flags_of("train", arguments).parse()
    assert (given.config.seed, given.config.model.remat, given.accept, given.show) == (3, False, ["data"], True)
    assert flags_of("predict", ["--run=x", "a.jpg", "--", "-b.jpg"]).parse().rest == ["a.jpg", "-b.jpg"]


@pytest.mark.parametrize(
    "broken",
    ["import nowhere", "def get_config():\n    return unknown", "x = 1", "1 / 0", "def get_config():\n    pass"],
)
def test_a_config_that_fails_is_one_line(here, broken):
    Path("own.py").write_text(f"{broken}\n")
    (line,) = answer("train", "--config=own.py")
    assert line.startswith("error: --config=own.py: ")
