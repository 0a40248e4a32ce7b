"""What the doctor says of a run apart from its photos: classes, disk, memory, speed, machine."""

import importlib
import json
import math
import os

import jax
import pytest

from larvseg_jax import assemble
from larvseg_jax.assemble import state_layout
from larvseg_jax.config import from_config
from larvseg_jax.devices.memory import ProgramMemory
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.doctor import classes, compiled, machine, resources, speed
from larvseg_jax.doctor.compiled import StepReport
from larvseg_jax.doctor.examination import Extent, examine
from larvseg_jax.vocabulary.class_lists import raw
from tests import tiny

PAPER = ("a150", "a847", "c171", "c171_wa150", "c171_wa150_i124", "c171_wa847", "c171_wa847_i585", "c171_i21k")


@pytest.fixture
def config(tmp_path):
    config = tiny.get_config()
    config.data_root, config.workdir = str(tiny.write_data(tmp_path).parent), str(tmp_path / "run")
    return config


def paper_config(name, tmp_path):
    config = importlib.import_module(f"configs.{name}").get_config()
    config.data_root, config.workdir, config.batch_padding = str(tmp_path), str(tmp_path / "run"), "pad"
    return config


@pytest.mark.parametrize("name", PAPER)
def test_every_paper_config_is_examined_without_data(name, tmp_path):
    run = from_config(paper_config(name, tmp_path))
    found = list(examine(run, Extent(200, 0.0, compile=False, step=False, sheet=tmp_path / "doctor.html")))
    by_title = {section.title: section for section in found}
    assert len(by_title) == 12
    absent = [f.text for f in by_title["data"].findings]
    assert len(absent) == len(run.streams) + 1
    assert all("python -m data_pipelines.prepare " in text for text in absent)
    machine_errors = [f.where for f in by_title["machine"].findings if f.level == "error"]
    assert machine_errors == ["pretrained"]
    others = [f for s in found if s.title not in ("data", "machine") for f in s.findings if f.level == "error"]
    assert others == []
    assert list(tmp_path.iterdir()) == []  # nothing was written


def test_shared_rows_and_definitions_are_those_of_the_lists(tmp_path):
    section = classes.classes_section(from_config(paper_config("c171_wa150", tmp_path)))
    shared = section.facts["shared"]["ade20k_150 and coco_stuff_171"]
    against = raw("overlaps")["A150"]["processed"]["base_indices"]
    assert sorted(shared) == sorted({raw("ade20k_150")["classes"][i] for i in against})
    assert section.facts["evals"]["val"]["base_novel"] == {"processed": "63/87", "split": "58/92"}
    assert section.facts["classes"] == section.facts["base"] + section.facts["novel"] == 160 + 150 - 63
    texts = [f.text for f in section.findings]
    assert any("definition 'split': 58/92" in text for text in texts)
    large = classes.classes_section(from_config(paper_config("c171_i21k", tmp_path)))
    # "car" is a motor car, a railway car, an elevator car, ...
    assert "car" in large.facts["ambiguous"]
    assert [f.level for f in large.findings if "titles stay apart" in f.text] == ["note"]


def test_masks_that_teach_novel_classes_and_classes_that_nobody_teaches_are_told(config):
    config.streams.masks.classes = ("background", "red", "blue")
    config.streams.tags.classes = ("background", "red", "blue", "grey")
    section = classes.classes_section(from_config(config))
    warnings = {f.where: f.text for f in section.findings if f.level == "warning"}
    assert warnings["streams.masks"].startswith("masks teach novel classes: blue:")
    assert warnings["vocabulary"] == "no stream knows 1 base or novel classes: green"


def test_memory_of_each_device_is_exact(tmp_path):
    """The largest vocabulary over (4, 2) devices, counted by hand."""
    run = from_config(paper_config("c171_i21k", tmp_path))
    parts = resources.state_bytes(state_layout(run, make_mesh(4, 2)))
    rows, width = math.ceil(len(run.vocabulary.classes) / 16) * 16 // 2, 768  # rows are filled up to 16s
    assert parts["class embeddings"] == rows * width * 4
    slots, mean, cursors = rows * 20 * width * 2, rows * width * 4, rows * 2 * 4
    assert parts["memory"] == slots + mean + cursors
    # SGD keeps a momentum for each parameter, and counts its steps.
    counters = parts["optimiser"] - parts["parameters"] - parts["class embeddings"]
    assert 0 <= counters < 100
    whole = resources.state_bytes(state_layout(run, make_mesh(1, 1, jax.devices()[:1])))
    assert whole["parameters"] == pytest.approx(parts["parameters"], abs=8)  # the step, and what no class owns
    assert 85e6 < whole["parameters"] / 4 < 90e6  # ViT-B/16 and its head


def disk(run):
    return resources.disk_section(run, (), state_layout(run, make_mesh(1, 1, jax.devices()[:1])))


def test_checkpoints_must_fit_on_the_disk(config, monkeypatch):
    run = from_config(config)
    section = disk(run)
    one = section.facts["checkpoint"]
    assert section.facts["checkpoints"] == 3 * one
    assert section.facts["workdir_free"] == pytest.approx(os.statvfs(config.data_root).f_bavail * 4096, rel=0.2)
    assert [f.level for f in section.findings] == ["ok"]
    usage = resources.shutil.disk_usage(config.data_root)
    for free, level in ((4 * one, "ok"), (4 * one - 1, "error")):
        monkeypatch.setattr(resources.shutil, "disk_usage", lambda _, free=free: usage._replace(free=free))
        assert [f.level for f in disk(run).findings] == [level]


def memory(run, step, monkeypatch, limit):
    monkeypatch.setattr(resources, "device_memory", lambda mesh: (limit, "of one toy"))
    mesh = make_mesh(1, 1, jax.devices()[:1])
    section = resources.memory_section(run, mesh, state_layout(run, mesh), step)
    return section, {f.where: (f.level, f.text) for f in section.findings}


def test_memory_is_held_against_the_device(config, monkeypatch):
    run = from_config(config)
    section, found = memory(run, None, monkeypatch, 10**9)
    needed = sum(section.facts["per_device"].values()) + section.facts["gradients"]
    assert section.facts["needed"] == needed
    assert found["activations"] == ("note", "not measured: --compile measures them")
    assert found["memory"][0] == "ok"
    assert memory(run, None, monkeypatch, needed - 1)[1]["memory"][0] == "error"
    assert memory(run, None, monkeypatch, needed + 1)[1]["memory"][0] == "warning"
    sizes = dict(arguments=100, output=90, shared=80, temporary=1000, code=5)
    section, found = memory(run, StepReport(ProgramMemory(**sizes)), monkeypatch, 1000)
    assert section.facts["needed"] == 100 + 90 - 80 + 1000 + 5
    assert found["memory"][0] == "error"
    _, found = memory(run, StepReport(None, failure="RESOURCE_EXHAUSTED"), monkeypatch, 1000)
    assert found["step"] == ("error", "cannot be compiled or run: RESOURCE_EXHAUSTED")


@pytest.mark.parametrize(
    ("steps", "level", "text"),
    [(5.0, "ok", "keeps up"), (4.1, "warning", "only just"), (1.0, "warning", "waits 75% of the time")],
)
def test_the_verdict_on_speed(config, monkeypatch, steps, level, text):
    monkeypatch.setattr(speed, "batches_per_second", lambda run, streams, seconds: steps)
    run = from_config(config)
    streams = dict.fromkeys(run.streams, open_stream(run))
    section = speed.speed_section(run, streams, 1.0, StepReport(None, seconds=0.25))
    found = {f.where: (f.level, f.text) for f in section.findings}
    assert found["verdict"][0] == level
    assert text in found["verdict"][1]
    assert f"{steps * 16:.1f} images/s with 2 threads" in found["data"][1]  # 8 masked and 8 tagged pictures a step
    assert f"{steps * 8:.1f} images/s; on its own {steps * 8:.1f}" in found["streams.tags"][1]


def open_stream(run):
    from larvseg_jax.assemble import open_streams

    return open_streams(run)["masks"]


def test_the_step_is_as_fast_as_the_log_says_or_unknown(config, tmp_path):
    run = from_config(config)
    section = speed.speed_section(run, dict.fromkeys(run.streams), 0.0, None)
    assert any("--time_step measures it" in f.text and f.level == "note" for f in section.findings)
    (tmp_path / "run").mkdir()
    lines = [{"step": i, "kind": "train", "images_per_second": rate} for i, rate in enumerate((1.0, 32.0, 33.0))]
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    section = speed.speed_section(run, dict.fromkeys(run.streams), 0.0, None)
    assert section.facts["images_per_second_logged"] == 32.0


def test_the_real_pipeline_is_what_is_timed(config):
    run = from_config(config)
    stream = open_stream(run)
    assert speed.batches_per_second(run, {"masks": stream}, 0.05) > 0
    (run.data_root / "tiny" / "images" / "p03.png").write_bytes(b"")
    section = speed.speed_section(run, {"masks": stream, "tags": stream}, 2.0, None)
    assert any(f.where == "data" and "not measured" in f.text and "p03" in f.text for f in section.findings)


def test_batches_that_the_mesh_does_not_divide_and_missing_weights_are_errors(config, tmp_path):
    config.streams.tags.batch_size = 6
    config.pretrained = str(tmp_path / "none.npz")
    run = from_config(config)
    mesh = assemble.mesh_of(run)
    section = machine.machine_section(run, mesh, None)
    errors = {f.where: f.text for f in section.findings if f.level == "error"}
    assert errors["streams.tags"].startswith("streams.tags.batch_size=6 cannot be split over 8 devices")
    assert "none.npz is not there" in errors["pretrained"]
    assert section.facts["versions"]["jax"] == jax.__version__
    assert section.facts["devices"] == ["cpu"] * 8
    (tmp_path / "none.npz").write_bytes(b"no weights")
    section = machine.machine_section(run, mesh, state_layout(run, mesh))
    assert "none.npz" in {f.where: f.text for f in section.findings if f.level == "error"}["pretrained"]


@pytest.mark.slow
def test_the_real_step_is_compiled_and_run(config):
    config.streams.tags.lambda_aux = 0.0  # compiles sooner
    config.model.depth = 1
    run = from_config(config)
    mesh = make_mesh(1, 1, jax.devices()[:1])
    step = compiled.try_step(run, mesh, execute=True)
    assert step.failure == ""
    assert step.seconds > 0
    state = sum(resources.state_bytes(state_layout(run, mesh)).values())
    pictures = 2 * 8 * 16 * 16 * 3  # two streams of eight crops, 8-bit levels
    assert step.memory.arguments >= state + pictures
    assert step.memory.shared >= state * 0.9  # the state is updated where it lies
