"""docs/own_data.md, followed to the letter on made pictures; and the config behind it."""

import contextlib
import dataclasses
import json
import re
import shlex
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from configs import own_data
from data_pipelines.folder_classes import read_classes
from data_pipelines.views import TagView
from larvseg_jax import cli
from larvseg_jax.assemble import lower_step, state_layout
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.errors import UserError
from tests.doc_commands import Line, command_of, words_of

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "own_data.md").read_text()
BLOCKS = [(kind, what, text) for kind, what, text in re.findall(r"^```(\w+) ?(.*)\n((?:.*\n)*?)```$", PAGE, re.M)]
SHORT = "--config.total_steps=20"  # the page's own words for a short run
COLOURS = np.array([[30, 30, 30], [40, 160, 50], [40, 70, 200], [230, 230, 230], [210, 140, 40]], np.uint8)


def block(kind, what):
    (text,) = [t for k, w, t in BLOCKS if (k, w) == (kind, what)]
    return text


def paths_of_the_tree():
    return [line.split()[0] for line in block("text", "tree").splitlines()]


def scene(rng, values):
    """A mask with a rectangle of each value on a ground of zeros, and its photo."""
    mask = np.zeros((40, 48), np.uint8)
    for value in values:
        top, left = rng.integers(0, 24, 2)
        mask[top : top + 16, left : left + 16] = value
    return mask, COLOURS[np.minimum(mask, 4)] + rng.integers(0, 20, (40, 48, 3), dtype=np.uint8)


def make_pictures(root):
    """What the page's tree asks for: photos and masks of classes 0 to 2, and tagged pictures of other things."""
    rng = np.random.default_rng(0)
    folders = [path for path in paths_of_the_tree() if path.endswith("/")]
    for path in folders:
        (root / path).mkdir(parents=True)
    for path in folders:
        parts = Path(path).parts
        for i in range(6):
            if parts[1] == "images":
                mask, photo = scene(rng, (1, 2))
                mask[:3, :3] = 255
                Image.fromarray(photo).save(root / path / f"p{i}.jpg")
                Image.fromarray(mask).save(root / "mydata" / "masks" / parts[2] / f"p{i}.png")
    for line in block("text", "mydata/tagged/tags.csv").splitlines()[1:]:
        file, tags = line.split(",")
        values = [{"grass": 1, "water": 2, "zebra": 3, "giraffe": 4}[tag] for tag in tags.split(";")]
        Image.fromarray(scene(rng, values)[1]).save(root / "mydata" / "tagged" / file)


@pytest.fixture
def mydata(tmp_path, monkeypatch):
    """The page's folder, with its classes.txt, below the current folder."""
    monkeypatch.chdir(tmp_path)
    make_pictures(tmp_path)
    for file in ("mydata/classes.txt", "mydata/tagged/tags.csv"):
        Path(file).write_text(block("text", file))
    return tmp_path / "mydata"


@pytest.fixture
def foldered(mydata):
    """The same with a folder for each novel class in place of the list."""
    (mydata / "tagged" / "tags.csv").unlink()
    for i, path in enumerate(sorted((mydata / "tagged").glob("*.webp"))):
        folder = mydata / "tagged" / ("zebra", "giraffe")[i % 2]
        folder.mkdir(exist_ok=True)
        path.rename(folder / path.name)
    return mydata


def commands():
    """Those of the page on mydata."""
    lines = [line for kind, _, text in BLOCKS if kind == "bash" for line in text.splitlines()]
    return [line for line in lines if "mydata" in line]


SMALL = ["--config.model.width=16", "--config.model.depth=1", "--config.model.num_heads=2", "--config.gallery=1"]


def run(command, capsys):
    """Runs a command of the page in this process, in the current folder; what it printed."""
    name, arguments = command_of(words_of(Line("", command, True)))
    capsys.readouterr()
    with contextlib.suppress(SystemExit):
        cli.run(name, arguments)
    printed = capsys.readouterr()
    assert "error: " not in printed.err, command
    return printed.out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_the_page_leads_from_pictures_to_a_report(mydata, one_device, capsys):
    root = mydata.parent
    (root / "configs").symlink_to(REPOSITORY / "configs")  # as if the data lay in the repository, which stays clean
    assert SHORT in PAGE
    assert [c.split()[1] for c in commands()] == ["-m", "train.py", "evaluate.py", "evaluate.py"]
    output = {}
    for command in commands()[:-1]:
        more = [SHORT, *SMALL] if command.startswith("python train.py") else []
        output.setdefault(command.split()[1], run(" ".join([command, *more]), capsys))
    assert re.search(r"val: novel_offset \S+ chosen", run(commands()[-1], capsys))
    assert "masks: 6 pictures, 3 classes" in output["train.py"]
    assert "tagged: 6 pictures, 5 classes" in output["train.py"]
    assert (root / "runs" / "mydata" / "doctor.html").stat().st_size > 0
    report = (root / "runs" / "mydata" / "report.html").read_text()
    assert all(name in report for name in ("grass", "water", "zebra", "giraffe"))
    steps = [int(p.name) for p in (root / "runs" / "mydata" / "checkpoints").iterdir() if p.name.isdigit()]
    assert steps == [20]
    (line,) = [x for x in (root / "runs" / "mydata" / "metrics.jsonl").read_text().splitlines() if '"eval"' in x]
    scores = json.loads(line)
    assert scores["mIoU_novel"] is None  # as the page says: no mask shows them
    shown = float(re.search(r"mIoU_base ([\d.]+)", output["evaluate.py"]).group(1))
    assert shown == pytest.approx(100 * scores["mIoU_base"], abs=0.006)
    assert "mIoU_novel nan" in output["evaluate.py"]
    assert sorted(p.name for p in mydata.iterdir()) == ["classes.txt", "images", "masks", "tagged"]


def test_the_tree_of_the_page_is_what_the_config_reads(mydata):
    config = own_data.get_config("mydata")
    assert config.vocabulary.to_dict() == {
        "classes": ("background", "grass", "water", "giraffe", "zebra"),
        "base": ("grass", "water"),
        "novel": ("giraffe", "zebra"),
        "background": "background",
        "ignore_in_eval": ("giraffe", "zebra"),
    }
    assert config.name == "mydata"
    assert config.streams.masks.classes == ("background", "grass", "water")
    assert config.streams.tagged.always_tags == ("background",)
    assert (config.streams.tagged.max_labels, config.streams.tags_of_masks.max_labels) == (4, 3)
    assert (config.streams.tagged.source.tagged, config.streams.tagged.source.class_folders) == ("tagged", "")


def test_class_folders_do_without_a_list(foldered):
    config = own_data.get_config("mydata")
    assert config.vocabulary.novel == ("giraffe", "zebra")
    assert (config.streams.tagged.source.tagged, config.streams.tagged.source.class_folders) == ("", "tagged")
    assert config.streams.tagged.max_labels == 2


def test_the_page_s_coloured_classes_are_read(mydata):
    content = block("json", "mydata/classes.json")
    (mydata / "classes.json").write_text(content)
    classes = read_classes(mydata)
    assert list(classes.names) == block("text", "mydata/classes.txt").split()
    pixels = np.array([[*json.loads(content)["colours"], [255, 255, 255]]], np.uint8)
    Image.fromarray(pixels).save("mask.png")
    assert classes.decode(Path("mask.png").read_bytes(), "mask.png").tolist() == [[0, 1, 2, 65535]]


def arguments_of_the_page():
    texts = [t for _, what, t in BLOCKS if what == "argument"]
    return [shlex.split(text) for text in texts]


def argument(words):
    return words[0].partition("own_data.py:")[2]


def test_the_other_arguments_of_the_page_are_accepted(mydata):
    novel, dinov2, gpu = arguments_of_the_page()
    with (mydata / "classes.txt").open("a") as file:
        file.write("zebra\n")
    config = own_data.get_config(argument(novel))
    assert config.name == "mydata_novelzebra"
    assert config.vocabulary.base == ("grass", "water")
    assert config.vocabulary.novel == ("zebra", "giraffe")
    assert config.vocabulary.ignore_in_eval == ("giraffe",)
    assert "zebra" not in config.streams.masks.classes
    config = own_data.get_config(argument(dinov2))
    assert config.name == "mydata_sizedinov2"
    assert (config.model.width, config.model.depth, config.model.patch_size) == (384, 12, 14)
    assert (config.total_steps, config.method.ca_classifier.foreground_by) == (1000, "lead")  # docs/results.md, 24
    config = own_data.get_config(argument(gpu))
    assert config.pretrained == "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0.npz"
    assert (config.model.width, config.model.depth, config.model.patch_size) == (768, 12, 16)
    assert config.optimizer.name == "sgd"


@pytest.mark.parametrize(
    "arguments",
    ["mydata", *(pytest.param(f"mydata,{more}", marks=pytest.mark.slow) for more in ("method=baseline", "size=Ti"))],
)
def test_config_builds_and_its_step_lowers(mydata, arguments):
    run = from_config(own_data.get_config(arguments))
    attending = [s.loss.lambda_aux > 0 for s in run.streams.values() if isinstance(s.view, TagView)]
    assert attending == [("baseline" not in arguments)] * 2
    assert run.name == arguments.replace(",", "_").replace("=", "")
    run = dataclasses.replace(run, vit=dataclasses.replace(run.vit, depth=2))  # all blocks are alike
    mesh = make_mesh(1, 1, jax.devices()[:1])
    assert "stablehlo" in lower_step(run, mesh, state_layout(run, mesh)).as_text()[:2000]


def test_without_a_background_class_nothing_is_added_to_the_tags(mydata):
    (mydata / "classes.txt").write_text("grass\nwater\n")
    config = own_data.get_config("mydata/")
    assert config.vocabulary.background == ""
    assert config.streams.tagged.always_tags == ()
    assert config.streams.tagged.max_labels == 3
    assert config.name == "mydata"


def test_unlabelled_is_no_class(mydata):
    (mydata / "classes.txt").write_text("unlabelled\ngrass\nunlabelled\nwater\n")
    assert own_data.get_config("mydata").vocabulary.classes == ("grass", "water", "giraffe", "zebra")


BACKGROUNDS = ("background", "_background_", "Background", "BG", "__background__", "other", "Others", "no class")
IGNORED = ("unlabelled", "unlabeled", "Unlabeled", "void", "Void", "ignore", "__ignore__", "don't care", "DontCare")


@pytest.mark.parametrize("name", [*BACKGROUNDS, *IGNORED])
def test_names_that_name_no_class_are_never_base(mydata, name, capsys):
    (mydata / "classes.txt").write_text(f"{name}\ngrass\nwater\n")
    config = own_data.get_config("mydata")
    assert config.vocabulary.base == ("grass", "water")
    assert config.vocabulary.background == (name if name in BACKGROUNDS else "")
    assert (name in config.vocabulary.classes) == (name in BACKGROUNDS)
    assert config.streams.tagged.always_tags == ((name,) if name in BACKGROUNDS else ())
    lines = [line for line in capsys.readouterr().out.splitlines() if "classes.txt" in line]
    meaning = "the background" if name in BACKGROUNDS else "ignored"
    assert lines == [] if name == "background" else len(lines) == 1
    assert all(f"{name!r} is {meaning} (other meanings: the arguments background=" in line for line in lines)


SAID = {
    "": (("grass",), "background"),
    ",base=void": (("void", "grass"), "background"),
    ",base=void+other": (("void", "grass", "other"), "background"),
    ",background=void": (("grass",), "void"),
    ",base=background+other,ignore=grass": (("other", "background"), ""),
}


@pytest.mark.parametrize(("arguments", "expected"), SAID.items())
def test_what_names_mean_can_be_said(foldered, arguments, expected):
    (foldered / "classes.txt").write_text("void\ngrass\nother\nbackground\n")
    words = own_data.get_config(f"mydata{arguments}").vocabulary
    assert (words.base, words.background) == expected


@pytest.mark.parametrize("left", [(), ("tagged",), ("tagged", "tagged/.DS_Store", "tagged/@eaDir")])
def test_without_tagged_pictures_the_masks_are_learnt(mydata, left, capsys):
    shutil.rmtree(mydata / "tagged")
    for folder in left:
        (mydata / folder).mkdir()
    config = own_data.get_config("mydata")
    assert list(config.streams) == ["masks"]
    assert config.streams.masks.weight == 1.0
    assert (config.vocabulary.base, config.vocabulary.novel) == (("grass", "water"), ())
    assert "mydata/tagged holds no tagged pictures: all classes are learnt from the masks" in capsys.readouterr().out
    run_of = from_config(config)
    mesh = make_mesh(1, 1, jax.devices()[:1])
    assert "stablehlo" in lower_step(run_of, mesh, state_layout(run_of, mesh)).as_text()[:2000]


def rename(folder, to):
    return lambda data: (data / "tagged" / folder).rename(data / "tagged" / to)


MISTAKES = {
    "no folder given": ("", lambda data: None, r"needs the folder of your data: --config=configs/own_data\.py:mydata"),
    "no such folder": ("mydta", lambda data: None, r"mydta does not exist: give the folder of your data"),
    "no class list": ("mydata", lambda data: (data / "classes.txt").unlink(), r"mydata has neither classes\.json nor"),
    "two backgrounds": (
        "mydata",
        lambda data: (data / "classes.txt").write_text("background\nbg\ncat\n"),
        r"mydata/classes\.txt: 'background' and 'bg' both name the background: give both the same name, or say which",
    ),
    "one class": (
        "mydata",
        lambda data: (data / "classes.txt").write_text("unlabeled\nroad\n"),
        r"'road' alone is left to learn .* 'unlabeled' is ignored: if that .* background=unlabeled",
    ),
    "no such special name": (
        "mydata,background=sky",
        lambda data: None,
        r"background=sky: .*classes\.txt has no 'sky'",
    ),
    "novel without any tags": (
        "mydata,novel=grass",
        lambda data: shutil.rmtree(data / "tagged"),
        r"novel=grass: .*mydata/tagged has no 'grass': it has no classes",
    ),
    "void folder": ("mydata", rename("zebra", "Void"), r"mydata/tagged/Void: this name stands for no class: rename"),
    "another spelling": (
        "mydata",
        rename("zebra", "Gr-ass"),
        r"mydata/tagged/Gr-ass: mydata/classes\.txt writes this class 'grass': rename it there",
    ),
    "size": ("mydata,size=huge", lambda data: None, r"size=huge: use small, dinov2, Ti, S, B, L"),
    "novel without masks": ("mydata,novel=zebra", lambda data: None, r"novel=zebra: .*classes\.txt has no 'zebra'"),
    "novel without tags": ("mydata,novel=grass", lambda data: None, r"novel=grass: .*mydata/tagged has no 'grass'"),
    "no base class": (
        "mydata",
        lambda data: (data / "classes.txt").write_text("background\nunlabelled\n"),
        r"mydata/classes\.txt: no base class is left to learn from masks",
    ),
    "unlabelled folder": ("mydata", rename("zebra", "unlabelled"), r"mydata/tagged/unlabelled: .*stands for no class"),
    "novel background": (
        "mydata,novel=background",
        rename("zebra", "background"),
        r"novel=background: .* cannot be novel",
    ),
}


@pytest.mark.parametrize(("arguments", "spoil", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_named(foldered, arguments, spoil, message):
    spoil(foldered)
    with pytest.raises(UserError, match=message) as caught:
        own_data.get_config(arguments)
    assert "\n" not in str(caught.value)


LIST_MISTAKES = {
    "another spelling": ("Grass", r"tags\.csv, tag 'Grass': mydata/classes\.txt writes this class 'grass': rename it"),
    "two spellings": ("Zebra", r"tags\.csv, tag 'zebra': mydata/tagged/tags\.csv writes this class 'Zebra': rename it"),
    "no class": ("void", r"tags\.csv, tag 'void': this name stands for no class: rename it there, or take it out"),
}


@pytest.mark.parametrize(("tag", "message"), LIST_MISTAKES.values(), ids=LIST_MISTAKES)
def test_mistakes_in_a_list_are_named(mydata, tag, message):
    with (mydata / "tagged" / "tags.csv").open("a") as file:
        file.write(f"0.webp,{tag}\n")
    with pytest.raises(UserError, match=message):
        own_data.get_config("mydata")
