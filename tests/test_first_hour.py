"""The commands of README.md and docs/ are run, in the order of the page: small pictures, small networks, few steps.

Flags that make a run short are added behind; everything else is as printed. docs/own_data.md is followed by
tests/configs/test_own_data.py.
"""

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines.scenes import pictures
from larvseg_jax import assemble, cli
from larvseg_jax.config import from_config
from larvseg_jax.weights.checkpoint import Checkpoints
from larvseg_jax.weights.record import Record
from tests import tiny
from tests.doc_commands import PAGES, REPOSITORY, Line, command_of, lines_of, words_of
from tests.weights.clip_writing import write_clip

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")]

LINES = list(dict.fromkeys(line for page in PAGES for line in lines_of(page)))
NETWORK = [f"--config.model.{option}" for option in ("width=16", "depth=1", "num_heads=2", "mlp_dim=32")]
# 22 steps on crops of 32 pixels; 8 emulated devices do not divide the batches.
STREAMS = [f"--config.streams.{name}.{option}" for name in ("masks", "tags", "objects")
           for option in ("batch_size=4", "crop_size=32")]  # fmt: skip
SHORT = [
    *NETWORK,
    *STREAMS,
    "--config.method.ca_classifier.foreground_topk=4",
    "--config.total_steps=22",
    "--config.batch_padding=pad",
    "--config.gallery=1",
]
BEHIND = {  # beginning of a command -> what is added to it
    "python train.py --config=configs/quickstart.py": SHORT,
    "python -m larvseg_jax.doctor --config=configs/quickstart.py": [*SHORT, "--seconds=0"],
    "larvseg export --run=runs/x --out=model.stablehlo": ["--size=48x64"],
    "larvseg export --run=runs/x --out=model.onnx": ["--size=48x64"],
    "python -m larvseg_jax.import_original": ["--heads=2"],  # of the file in tests/data
}
NOT_RUN = {  # beginning of a command -> why not
    "train.py --coordinator=": "several hosts; tests/devices/test_processes.py runs two processes",
    "python train.py --config=configs/quickstart.py --config.seed=": "the first command with another seed",
    "python train.py --config=configs/quickstart.py --config.data_root=DIR": "a place that the reader chooses",
    "python -m larvseg_jax.compile_check": "needs a TPU's compiler; tests/compile_check/ where there is one",
    "python -m larvseg_jax.doctor --config=configs/c171": "needs COCO-Stuff; tests/doctor/ examines it without data",
    "python train.py --config=configs/c171": "needs COCO-Stuff and ADE20K",
    "LARVSEG_DATA=DIR python train.py --config=configs/voc_animals.py": "needs PASCAL VOC",
    "python train.py --config=configs/voc_animals.py:larvseg,learn=": "needs PASCAL VOC and pretrained weights",
    "python train.py --config=configs/clothing.py:larvseg,learn=": "needs Clothing Co-Parsing and pretrained weights",
    "python train.py --config=configs/lseg/": "needs text vectors and photos; tests/methods/lseg/ trains a small one",
    "larvseg text_vectors sky,grass": "needs such a training; docs/clip.md has one that is run",
    "python -m larvseg_jax.export --run=runs/vilseg": "likewise",
    "larvseg text_vectors coco_stuff_171 --weights clip": "needs CLIP's weights; docs/clip.md has one that is run",
    "python -m larvseg_jax.doctor --config=configs/captions.py": "needs Flickr8k, PASCAL VOC and COCO",
    "python train.py --config=configs/captions.py": "needs Flickr8k, PASCAL VOC, COCO and pretrained weights",
    "python -m data_pipelines.prepare": "needs downloads; tests/data_pipelines/test_prepare_command.py has small ones",
    "python -m data_pipelines.pack_wordnet": "needs WordNet; tests/vocabulary/test_hierarchy.py packs a small one",
    "python -m data_pipelines.caption_tags": "needs WordNet; tests/data_pipelines/test_caption_tags.py has a small one",
    "python train.py --config=configs/own_data.py:mydata,size=B": "needs a GPU and AugReg weights",
    "python -m larvseg_jax.doctor --config=configs/own_data.py:mydata": "by tests/configs/test_own_data.py",
    "python train.py --config=configs/own_data.py:mydata": "by tests/configs/test_own_data.py",
    "python train.py --config=configs/vilseg": "trains for half an hour; tests/methods/vilseg/ trains a small one",
    "python train.py --config=configs/cel": "trains for half an hour; tests/methods/cel/ trains a small one",
    "python evaluate.py --run=runs/cel": "needs such trainings and a CLIP; tests/methods/cel/test_ensemble.py",
    "larvseg predict photo.jpg --model=runs/cel": "needs the same; tests/predict/test_predict_settings.py",
    "python evaluate.py --run=runs/vilseg": "needs such a training; tests/methods/vilseg/ evaluates a small one",
    "python -m larvseg_jax.features": "needs pretrained weights; tests/features/ makes features",
    "python evaluate.py --run=runs/mydata": "by tests/configs/test_own_data.py",
    "python -m larvseg_jax.oracle": "needs pretrained weights or a run, and photos; tests/oracle/ runs it",
    "python -m larvseg_jax grid": "named, not a whole command",
    "python -m data_pipelines.scenes --streets": "by tests/data_pipelines/test_streets.py",
    "python -m data_pipelines.scenes --captions": "by tests/data_pipelines/test_scene_captions.py",
    "python -m larvseg_jax.doctor --config=configs/own_data.py:streets": "as on mydata",
    "python train.py --config=configs/own_data.py:streets": "as on mydata",
    "python evaluate.py --run=DIR": "tests/predict/test_novel_offset.py",
    "larvseg report": "needs two runs; tests/test_compare.py",
    "larvseg train --config=configs/own_data.py:mydata": "by tests/configs/test_own_data.py",
    "larvseg grid": "trains for hours; tests/grid/test_grid_command.py trains a small one",
    "train.py": "named, not a whole command",
    "evaluate.py": "named, not a whole command",
    "python -m larvseg_jax.export --run=runs/x --learnt": "needs pretrained weights; tests/weights/test_learnt.py",
    "python -m larvseg_jax.predict --run=head.safetensors": "likewise",
    "python evaluate.py --run=head.safetensors": "likewise",
    "python -m larvseg_jax.export --run=head.safetensors": "likewise",
    "python -m tests.parity": "needs recorded files",
    "python -m benchmarks.": "measures for minutes",
    "larvseg evaluate --run=runs/x --hierarchy": "needs masks; tests/evaluation/test_hierarchy_scores.py",
    "larvseg pseudo_labels": "needs CEL and CLIP; tests/pseudo_labels/ has small models of the kind",
    "larvseg page": "serves until it is stopped; tests/page/ opens it",
    "larvseg demo": "needs pretrained weights; tests/demo/ runs it",
    "python evaluate.py --run=ViT-B-16.pt": "needs CLIP's weights and PASCAL VOC; tests/methods/clip/test_clip_run.py",
    "python train.py --config=configs/clip/small.py": "needs captions; tests/methods/clip/test_clip_run.py",
    "make ": "its recipes are the commands of this page, or install packages",
    "time make ": "its recipes are the commands of this page, or install packages",
    "pip ": "installs packages",
    "source ": "of the shell",
}


DIVERGING = [
    f"--config={REPOSITORY / 'tests' / 'tiny.py'}", "--config.total_steps=4", "--config.gallery=0",
    "--config.optimizer.learning_rate=3e38", "--config.optimizer.weight_decay=100", "--config.optimizer.warmup_steps=0",
]  # fmt: skip


def reason_not_to_run(line: Line) -> str:
    if line.text in ("larvseg", "python -m larvseg_jax"):
        return "the bare program lists the commands"
    return next((reason for begin, reason in NOT_RUN.items() if line.text.startswith(begin)), "")


def run(line: str | Line, capsys) -> str:
    """Runs a command in this process, in the current folder; what it printed."""
    words = words_of(line if isinstance(line, Line) else Line("", line, True))
    name, arguments = command_of(words)
    text = " ".join(words)
    more = max((begin for begin in BEHIND if text.startswith(begin)), key=len, default=None)
    capsys.readouterr()
    with contextlib.suppress(SystemExit):
        cli.run(name, [*arguments, *BEHIND.get(more, [])])
    printed = capsys.readouterr()
    assert "error: " not in printed.err, text
    return printed.out


def run_page(name: str, capsys, skip=lambda line: False) -> dict[str, str]:
    """Runs what can be of a page; what each command printed."""
    lines = [line for line in LINES if line.page == name and not reason_not_to_run(line) and not skip(line)]
    return {line.text: run(line, capsys) for line in lines}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder like the repository: photo.jpg, photos/, and runs/x, a run of cats, dogs and sofas at step 800."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    pixels = np.random.default_rng(0).integers(0, 255, (40, 48, 3), np.uint8)
    (folder / "photos").mkdir()
    for name in ("photo.jpg", "photos/a.jpg", "photos/b.png"):
        Image.fromarray(pixels).save(folder / name)
    shutil.copy(REPOSITORY / "tests" / "data" / "original_tiny.pth", folder / "authors.pth")
    run_x(folder)
    return folder


def run_x(folder: Path) -> None:
    """A checkpoint of a training that never was, after 800 steps."""
    config = tiny.get_config()
    config.data_root, config.workdir = str(tiny.write_data(folder / "data").parent), str(folder / "runs" / "x")
    config.vocabulary = dict(
        classes=("cat", "dog", "sofa"), base=("cat", "dog"), novel=("sofa",), background="", ignore_in_eval=()
    )
    config.streams.masks.classes = ("cat", "dog")
    config.streams.tags.always_tags = ()
    experiment = from_config(config)
    mesh = assemble.mesh_of(experiment)
    method = assemble.make_method(experiment, mesh)
    state = assemble.fresh_state(experiment, mesh, method)
    layout = assemble.state_layout(experiment, mesh, method)
    record = Record.of(experiment.settings, experiment.vocabulary.classes, {}, layout)
    with Checkpoints(experiment.workdir) as checkpoints:
        checkpoints.save(record, state.replace(step=state.step + 800), 800, None)


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    return place


def test_the_readme(here, one_device, capsys, monkeypatch):
    for part in pictures.SIZES:
        monkeypatch.setitem(pictures.SIZES, part, 8)
    run("python -m data_pipelines.scenes --data_root=data", capsys)  # the first line of `make quickstart`
    printed = run_page("README.md", capsys)
    assert "mIoU_novel" in printed["python evaluate.py --run=runs/quickstart"]
    assert Path("predictions/photo.json").is_file()
    assert Path("runs/quickstart/doctor.html").is_file()
    assert list(Path("runs/traced/tensorboard/plugins/profile").iterdir())
    assert run("python evaluate.py --run=runs/quickstart --step=22", capsys).count("mIoU_novel") == 1
    assert "method.ca_classifier.foreground_topk" in run(
        "python train.py --config=configs/quickstart.py --show", capsys
    )


def test_the_pages_on_predictions_and_weights(here, capsys):
    """Together: a prediction is made of the file that an export wrote."""
    written = run_page("weights.md", capsys, skip=lambda line: "import_original" in line.text)
    assert all("model.safetensors: step 800, 3 classes" in text for text in written.values())
    printed = run_page("predict.md", capsys)
    assert len(printed) == 4
    assert all("prediction" in text for text in printed.values())
    assert sorted(path.name for path in Path("found").glob("*.json")) == ["a.json", "b.json"]
    assert "247 classes" in "".join(run_page("weights.md", capsys, skip=lambda line: "export" in line.text).values())


def test_the_page_on_names_of_classes(here, capsys):
    run("python -m larvseg_jax.export --run=runs/x --out=model.safetensors", capsys)
    printed = run_page("vocabulary.md", capsys)
    assert "sofa" in printed["larvseg vocab list --model=model.safetensors"]
    predicted = printed["larvseg predict photo.jpg --model=runs/x --classes=dog.n.01,couch"]
    assert "dog" in predicted or "sofa" in predicted
    assert "cat" not in predicted


def test_the_page_on_teaching(here, capsys):
    Path("masks").mkdir(exist_ok=True)
    mask = np.zeros((40, 48), np.uint8)
    mask[5:20, 10:30] = 1
    Image.fromarray(mask).save("masks/a.png")
    *_, predicted = run_page("teach.md", capsys).values()
    assert "my mug" in predicted or "spoon" in predicted
    assert json.loads(Path("predictions/photo.json").read_text())["names"] == ["my mug", "spoon", "dog"]


def test_the_page_on_exports(here, capsys):
    printed = run_page("exports.md", capsys)
    assert {path.name for path in Path("my-model").iterdir()} == {"config.json", "model.safetensors", "README.md"}
    assert "license: apache-2.0" in Path("my-model/README.md").read_text()
    assert "prediction" in printed["larvseg predict photo.jpg --model=my-model/model.safetensors"]
    assert json.loads(Path("model.onnx.json").read_text())["classes"] == ["cat", "dog", "sofa"]
    assert Path("model.stablehlo").is_file()
    assert Path("model.onnx").is_file()


def test_the_page_on_clip(here, capsys):
    write_clip(Path("clip-vit-b16-quickgelu.safetensors"))
    printed = run_page("clip.md", capsys)
    assert len(printed) == 5
    red_car, *_ = printed.values()
    assert "river" in red_car
    with np.load("stuff.npz") as file:
        assert file["vectors"].shape == (160, 12)  # titles of 171 classes


def test_the_page_on_reliability(place, one_device, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        cli.run("train", [*DIVERGING, f"--config.data_root={place / 'data'}", "--config.workdir=runs/x"])
    assert left.value.code == 2
    (file,) = Path("runs/x/diverged").glob("step_*.json")
    file.rename(file.with_name("step_N.json"))
    assert "the losses are those of then" in "".join(run_page("reliability.md", capsys).values())


def test_every_command_is_run_or_there_is_a_reason_why_not():
    tested = (
        "README.md",
        "predict.md",
        "weights.md",
        "vocabulary.md",
        "reliability.md",
        "teach.md",
        "exports.md",
        "clip.md",
    )
    run_there = {line.text for line in LINES if line.page in tested}
    assert [line for line in LINES if not reason_not_to_run(line) and line.text not in run_there] == []
    assert [begin for begin in NOT_RUN if not any(line.text.startswith(begin) for line in LINES)] == []
