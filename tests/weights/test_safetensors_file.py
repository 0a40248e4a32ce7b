"""Runs, their checkpoints and exported files: bit by bit, by name, and refused if damaged."""

import dataclasses
import json
import shutil
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import load_file, save_file

from larvseg_jax import cli
from larvseg_jax.assemble import make_method, state_layout
from larvseg_jax.config import from_config, network_sections
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.errors import UserError
from larvseg_jax.methods.method import Task
from larvseg_jax.start import first_state
from larvseg_jax.trained import load_trained
from larvseg_jax.weights.checkpoint import Checkpoints
from larvseg_jax.weights.pretrained import check_pretrained, load_pretrained
from larvseg_jax.weights.record import Record
from larvseg_jax.weights.safetensors_file import SavedModel, load_safetensors, save_safetensors
from larvseg_jax.weights.stored_checkpoint import read_checkpoint
from tests import tiny

CLASSES = len(tiny.NAMES)


def tiny_run(workdir, **changes):
    config = tiny.get_config()
    config.workdir = str(workdir)
    config.method.ca_classifier.bank_dtype = "bfloat16"
    # Every option of the network has to come through.
    config.model.update(class_token=False, registers=2, layer_scale=True, mlp="swiglu", pixels="half")
    config.model.update(position_resize="antialiased", layer_norm_epsilon=1e-5)
    config.update_from_flattened_dict(changes)
    return from_config(config)


def random_state(run, mesh, seed=0):
    """A state of the run in which every number is another."""
    rng = np.random.default_rng(seed)
    layout = state_layout(run, mesh)
    return jax.tree.map(
        lambda x: jax.device_put(np.asarray(rng.standard_normal(x.shape) * 9).astype(x.dtype), x.sharding), layout
    )


def flat(params):
    return traverse_util.flatten_dict(params, sep="/")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run with checkpoints of steps 3 and 6, whose gamma is the step."""
    folder = tmp_path_factory.mktemp("run")
    run = tiny_run(folder)
    state = random_state(run, make_mesh(2, 4))
    record = Record.of(run.settings, run.vocabulary.classes, {}, state)
    with Checkpoints(folder) as checkpoints:
        for step in (3, 6):
            checkpoints.save(record, with_gamma(state, step), step, 0.1)
    return folder


def with_gamma(state, gamma):
    params = {**state.params, "head": {**state.params["head"], "gamma": jnp.float32(gamma)}}
    return dataclasses.replace(state, params=params)


@pytest.fixture(scope="module")
def saved(folder):
    """What was saved at step 6, as one flat dictionary."""
    state = jax.device_get(with_gamma(random_state(tiny_run(folder), make_mesh(2, 4)), 6))
    return {**flat(state.params), "memory": state.memory}


@pytest.fixture(scope="module")
def exported(folder):
    cli.run("export", ["--run", str(folder), "--out", str(folder / "model.safetensors"), "--memory"])
    return folder / "model.safetensors"


def test_a_checkpoint_is_exported_bit_by_bit(exported, saved):
    """Read with the library alone."""
    found = load_file(exported)
    memory = saved["memory"]
    for name, value in found.items():
        if name.startswith("memory/"):
            expected = getattr(memory, name.removeprefix("memory/"))[:CLASSES]
            expected = expected.astype(np.float32) if name == "memory/slots" else expected
        else:
            expected = saved[name][:CLASSES] if name == "head/class_embeddings" else saved[name]
        assert value.dtype == expected.dtype
        assert value.tobytes() == np.asarray(expected).tobytes(), name
    arrays_of_memory = {f"memory/{name}" for name in ("slots", "cursor", "wraps", "class_mean")}
    assert found.keys() == (saved.keys() - {"memory"}) | arrays_of_memory


def parts_of(path):
    """Metadata and data, as the format says: a length, JSON, numbers."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def test_the_header_tells_what_the_model_is(exported, folder):
    metadata = parts_of(exported)[0]["__metadata__"]
    assert json.loads(metadata["classes"]) == list(tiny.NAMES)
    assert json.loads(metadata["base"]) == list(tiny.BASE)
    assert json.loads(metadata["novel"]) == list(tiny.NOVEL)
    assert metadata["background"] == "background"
    assert (metadata["source"], metadata["step"], metadata["format"]) == (str(folder), "6", "larvseg_jax 2")
    settings = json.loads(metadata["settings"])
    assert (settings["model"]["width"], settings["method"]["name"]) == (16, "larvseg")
    assert "jax" in json.loads(metadata["versions"])
    assert len(metadata["digest"]) == 64


def test_reading_and_writing_again_gives_the_same_file(exported, tmp_path):
    model = load_safetensors(exported)
    save_safetensors(tmp_path / "again.safetensors", model)
    assert parts_of(tmp_path / "again.safetensors") == parts_of(exported)
    assert [file.name for file in tmp_path.iterdir()] == ["again.safetensors"]


def test_the_model_can_be_rebuilt_from_the_file(exported, folder, saved):
    """The same features, class vectors and scores as with what was saved, in the model of the run."""
    model, trained, run = load_safetensors(exported), load_trained(exported), tiny_run(folder)
    metadata = model.metadata
    assert network_sections(metadata.settings) == (run.method, run.vit)
    assert (metadata.classes, metadata.base, metadata.novel) == (tiny.NAMES, tiny.BASE, tiny.NOVEL)
    assert trained.vocabulary == run.vocabulary
    # Both on one device: attention depends on their number, and so do last digits.
    method = run.method.make(Task(len(saved["head/class_embeddings"]), run.vit, {}, make_mesh(1, 1, jax.devices()[:1])))
    params = traverse_util.unflatten_dict({name: x for name, x in saved.items() if name != "memory"}, sep="/")
    images, label_set = jax.random.normal(jax.random.key(1), (1, 16, 16, 3)), run.vocabulary.label_set()

    def outputs(method, params):
        scorer = method.scorer(label_set)
        return jax.jit(lambda p: (method.embed(p, images), scorer.vectors(p, None), scorer.scores(p, None, images)))(
            params
        )

    ours, theirs = outputs(trained.method, trained.params), outputs(method, params)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert ours[2].shape == (1, 4, 4, CLASSES)
    assert float(trained.params["head"]["gamma"]) == 6


def test_a_step_can_be_chosen_and_the_bank_left_out(folder, tmp_path):
    target = tmp_path / "model.safetensors"
    cli.run("export", ["--run", str(folder), "--step", "3", "--out", str(target)])
    model = load_safetensors(target)
    assert (float(model.params["head/gamma"]), model.metadata.step, model.memory) == (3, 3, {})
    cli.run("export", ["--run", str(folder / "checkpoints" / "3"), "--out", str(target)])
    assert load_safetensors(target).metadata.step == 3


SOURCES = {
    "run": (lambda folder, exported: folder, 6),
    "step": (lambda folder, exported: folder / "checkpoints" / "3", 3),
    "file": (lambda folder, exported: exported, 6),
}


@pytest.mark.parametrize(("path", "gamma"), SOURCES.values(), ids=SOURCES)
def test_classes_of_a_new_vocabulary_find_their_rows_by_name(folder, exported, saved, tmp_path, path, gamma):
    """Another order, a class fewer, two more; another stored grid; on another mesh."""
    classes = ("pink", "grey", "background", "red", "green", "teal")
    run = tiny_run(
        tmp_path,
        **{"vocabulary.classes": classes, "vocabulary.base": ("red", "green"), "vocabulary.novel": ("grey", "pink")},
        **{"model.image_size": 32, "streams.masks.classes": ("background", "red", "green")},
    )
    mesh = make_mesh(4, 2)
    fresh = random_state(run, mesh, seed=1).params
    source = path(folder, exported)
    params, report = load_pretrained(source, fresh, run.vit, run.vocabulary.classes)
    assert jax.tree.map(lambda x: x.sharding, params) == jax.tree.map(lambda x: x.sharding, fresh)
    table, before = np.asarray(params["head"]["class_embeddings"]), np.asarray(fresh["head"]["class_embeddings"])
    assert len(table) == 16
    for row, name in enumerate(classes):
        known = name in tiny.NAMES
        expected = saved["head/class_embeddings"][tiny.NAMES.index(name)] if known else before[row]
        np.testing.assert_array_equal(table[row], expected, err_msg=name)
    np.testing.assert_array_equal(table[6:], before[6:])
    ours = flat(params)
    for name in ours.keys() - {"head/class_embeddings", "backbone/Transformer/posembed_input/pos_embedding"}:
        expected = np.float32(gamma) if name == "head/gamma" else saved[name]
        np.testing.assert_array_equal(ours[name], expected, err_msg=name)
    assert (report.rows_found, report.rows_fresh, report.rows_unused) == (4, ("pink", "teal"), 1)
    assert check_pretrained(source, state_layout(run, mesh).params, run.vit, classes) == report
    assert (report.missing, report.extra, report.resized) == ((), (), "4x4 -> 8x8")
    assert "class embeddings: 4 of 6 taken by name; 1 of the file unused" in str(report)
    assert "classes left as initialised: pink, teal" in str(report)


def test_a_run_starts_from_what_pretrained_names(folder, exported, tmp_path, capsys):
    run = tiny_run(tmp_path, pretrained=str(exported))
    mesh = make_mesh(8, 1)
    with Checkpoints(run.workdir) as checkpoints:
        record = Record.of(run.settings, run.vocabulary.classes, {}, state_layout(run, mesh))
        state, story = first_state(run, mesh, make_method(run, mesh), checkpoints, record)
    assert float(state.params["head"]["gamma"]) == 6
    assert int(state.step) == 0
    (out,) = story
    assert "exported model model.safetensors: ViT/4 of width 16, depth 2" in out
    assert "class embeddings: 5 of 5 taken by name" in out


def test_a_checkpoint_of_another_size_says_so(folder, tmp_path):
    run = tiny_run(tmp_path, **{"model.width": 32})
    with pytest.raises(UserError, match="a ViT/4 of width 16, depth 2.*the model a ViT/4 of width 32.*[0-9] more"):
        load_pretrained(folder, random_state(run, make_mesh(8, 1)).params, run.vit, tiny.NAMES)


def change_byte(path):
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def change_classes(path):
    """Two names exchanged: the lengths stay, only the digest can tell."""
    content = path.read_bytes()
    names, exchanged = b'"classes":"[\\"background\\", \\"red\\"', b'"classes":"[\\"red\\", \\"background\\"'
    assert content.count(names) == 1
    path.write_bytes(content.replace(names, exchanged))


def of_somebody_else(path):
    save_file({"cls": np.zeros(3, np.float32)}, path, {"format": "pt"})


def without_metadata(path):
    save_file({"cls": np.zeros(3, np.float32)}, path)


DAMAGE = {
    "byte": (change_byte, "digest does not match"),
    "names": (change_classes, "digest does not match"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-100]), "cannot read .*SafetensorError"),
    "text": (lambda path: path.write_text("no weights here, none at all"), "cannot read .*SafetensorError"),
    "empty": (lambda path: path.write_bytes(b""), "cannot read"),
    "other": (of_somebody_else, "has format 'pt' and not 'larvseg_jax 2'"),
    "bare": (without_metadata, "has format 'none'"),
    "absent": (lambda path: path.unlink(), "there is no file"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_files_are_refused_in_one_line(exported, tmp_path, damage, message):
    path = tmp_path / "model.safetensors"
    shutil.copy(exported, path)
    damage(path)
    with pytest.raises(UserError, match=message) as caught:
        load_safetensors(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_metadata_that_does_not_fit_the_arrays_is_refused(exported, tmp_path):
    model = load_safetensors(exported)
    fewer = dataclasses.replace(model.metadata, classes=tiny.NAMES[:3])
    save_safetensors(tmp_path / "x.safetensors", SavedModel(model.params, {}, fewer))
    for load in (load_safetensors, load_trained):
        with pytest.raises(UserError, match="5 class embeddings for 3 classes"):
            load(tmp_path / "x.safetensors")


@pytest.mark.parametrize("name", ["model.npz", "nowhere/model.safetensors"])
def test_a_file_that_cannot_be_written_is_named(exported, tmp_path, name):
    with pytest.raises(UserError, match=f"cannot .*write|{name} cannot be written"):
        save_safetensors(tmp_path / name, load_safetensors(exported))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "{folder}", "--step", "4"], "has no checkpoint of step 4: it has [3, 6]"),
        (["--run", "{folder}/checkpoints/3", "--step", "6"], "3 is not the checkpoint of step 6"),
        (
            ["--run", "{folder}/checkpoints"],
            "is no run and no checkpoint: did you mean {folder}, or a folder with checkpoints/",
        ),
        (["--run", "{folder}/checkpoints/9"], "is no run and no checkpoint"),
    ],
)
def test_the_command_tells_bad_input_in_one_line(folder, tmp_path, capsys, arguments, message):
    arguments = [part.format(folder=folder) for part in arguments]
    with pytest.raises(SystemExit) as caught:
        cli.run("export", [*arguments, "--out", str(tmp_path / "m.safetensors")])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message.format(folder=folder) in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("damage", ["digest", "state"])
def test_a_damaged_checkpoint_is_not_exported(folder, tmp_path, damage):
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    step = copy / "checkpoints" / "6"
    if damage == "state":
        shutil.rmtree(step / "state")
    else:
        (file,) = (p for p in (step / "digest").rglob("*") if p.is_file() and b"leaves" in p.read_bytes())
        digests = json.loads(file.read_text())
        digests["leaves"][3] ^= 1
        file.write_text(json.dumps(digests))
    with pytest.raises(UserError, match="is damaged: the digest|cannot be read"):
        read_checkpoint(copy, 6)
    assert read_checkpoint(copy).step == read_checkpoint(copy, 3).step == 3
