"""Only what a run learnt, in a small file: with the pretrained file it is the run, to float16's rounding."""

import hashlib
import json
import struct

import jax
import numpy as np
import pytest
from flax import traverse_util
from PIL import Image
from safetensors.numpy import load_file

from larvseg_jax import cli
from larvseg_jax.assemble import state_layout
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.errors import UserError
from larvseg_jax.evaluate import evaluate_checkpoint
from larvseg_jax.export import export_learnt
from larvseg_jax.predict.predictor import Predictor
from larvseg_jax.trained import load_trained
from larvseg_jax.training import history
from larvseg_jax.weights.pretrained import check_pretrained
from tests import tiny
from tests.weights.learnt_runs import (
    FROZEN,
    POSITIONS,
    config_of,
    learnt_names,
    random_parameters,
    rounded,
    write_backbone,
    write_rounded,
    write_run,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder with data, pretrained.npz and a run on it; the run's parameters."""
    folder = tmp_path_factory.mktemp("made")
    tiny.write_data(folder)
    config = config_of(folder, folder / "pretrained.npz", data_root=str(folder))
    begun = random_parameters(from_config(config), 0)
    write_backbone(folder / "pretrained.npz", begun)
    moved = random_parameters(from_config(config), 1)
    parameters = {name: moved[name] if name in learnt_names(begun) else x for name, x in begun.items()}
    history.note(write_run(config, parameters), "started", 0, commit="abc", command="python train.py --config=x.py")
    return folder, parameters


@pytest.fixture(scope="module")
def head(made):
    folder, _ = made
    cli.run("export", [f"--run={folder / 'run'}", "--learnt", f"--out={folder / 'head.safetensors'}"])
    return folder / "head.safetensors"


def test_the_file_holds_what_moved_and_nothing_else(made, head):
    """Read with the library alone."""
    _, parameters = made
    found = load_file(head)
    assert found.keys() == learnt_names(parameters)
    assert {"head/class_embeddings", "backbone/Transformer/encoder_norm/scale"} <= found.keys()
    expected = rounded(parameters)
    for name, value in found.items():
        assert value.dtype == np.float16
        np.testing.assert_array_equal(value.astype(np.float32), expected[name], err_msg=name)


def test_its_header_says_what_it_is_and_what_it_needs(made, head):
    content = head.read_bytes()
    metadata = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])["__metadata__"]
    assert (metadata["format"], metadata["step"]) == ("larvseg_jax 3", "3")
    assert json.loads(metadata["classes"]) == list(tiny.NAMES)
    assert json.loads(metadata["settings"])["optimizer"]["frozen"] == FROZEN
    assert json.loads(metadata["frozen"]).keys() == made[1].keys() - learnt_names(made[1])
    assert metadata["pretrained"] == "AugReg file pretrained.npz"


def photos(number=2, side=97):
    rng = np.random.default_rng(5)
    for _ in range(number):
        small = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
        yield np.asarray(small.resize((side + 20, side), Image.Resampling.BICUBIC))


def test_predictions_are_those_of_the_run_rounded(made, head, tmp_path):
    """Bit by bit those of the same weights, rounded by NumPy, in a file that has them all; and nearly the run's own."""
    folder, parameters = made
    ours = Predictor.load(head, pretrained=folder / "pretrained.npz")
    whole = Predictor.load(write_rounded(folder, tmp_path / "whole.safetensors", parameters))
    run = Predictor.load(folder / "run")
    same, pixels = 0, 0
    for photo in photos():
        found, expected, own = (predictor(photo, top_k=5) for predictor in (ours, whole, run))
        np.testing.assert_array_equal(found.labels, expected.labels)
        np.testing.assert_array_equal(found.scores, expected.scores)
        assert np.abs(found.scores[..., 0] - own.scores[..., 0]).max() < 5e-3
        assert len(np.unique(own.labels[..., 0])) > 2
        same += int((found.labels[..., 0] == own.labels[..., 0]).sum())
        pixels += own.labels[..., 0].size
    assert 0.999 * pixels <= same


def row(text, *cells):
    """The line of a table that begins with these cells, taken apart."""
    (line,) = (line for line in text.splitlines() if line.startswith("| " + " | ".join(cells) + " |"))
    return line.strip("| ").split(" | ")


def test_the_card_says_what_is_known_and_scores_the_file_itself(made, head, tmp_path):
    """The scores are those of the rounded weights in a file that has them all."""
    folder, parameters = made
    out = tmp_path / "a|b.safetensors"
    arguments = [f"--run={folder / 'run'}", "--learnt", f"--out={out}", "--licence=Only for tests."]
    cli.run("export", arguments)
    cli.run("export", [*arguments, "--evaluate"])  # which replaces the card
    text = (tmp_path / "model_card.md").read_text("utf-8")
    assert text.startswith("# Model card of a|b.safetensors\n")
    for file in (out, folder / "pretrained.npz"):
        assert f"{file.stat().st_size / 1000:.1f} kB, SHA-256 {hashlib.sha256(file.read_bytes()).hexdigest()}" in text
    assert "larvseg predict '--run=a|b.safetensors' --pretrained=pretrained.npz --image=photo.jpg" in text
    assert row(text, "command") == ["command", "python train.py --config=x.py"]
    assert row(text, "commit") == ["commit", "abc"]
    assert row(text, "machine") == ["machine", "not recorded"]
    assert row(text, "data of stream masks") == ["data of stream masks", "folder tiny, split train"]
    assert row(text, "run") == ["run", "tiny, step 3 of 12"]
    assert "## Licence\n\n- Only for tests.\n" in text
    assert "base (2): red, green\n\nnovel (2): blue, grey\n\nothers (1): background\n" in text
    whole = evaluate_checkpoint(write_rounded(folder, tmp_path / "whole.safetensors", parameters))["val"]
    for name, group, iou, accuracy, labelled in zip(
        whole.names, whole.groups, whole.iou, whole.acc, whole.labelled, strict=True
    ):
        shown = [f"{100 * x:.2f}" if x == x else "–" for x in (iou, accuracy)]
        assert row(text, name, group) == [name, group, *shown, f"{labelled:,}"]
    assert np.nanmax(whole.iou) > 0
    assert f"| {100 * whole.mean_iou:.2f} | {100 * whole.base_iou:.2f} | {100 * whole.novel_iou:.2f} |" in text


def test_a_card_invents_nothing_and_replaces_no_other(made, head, tmp_path, capsys):
    folder, _ = made
    text = head.with_name("model_card.md").read_text("utf-8")
    assert "## Licence\n\nnot recorded\n\n## Scores\n\nnot recorded\n" in text
    line = refused(capsys, "export", f"--run={folder / 'run'}", "--learnt", f"--out={folder / 'other.safetensors'}")
    assert line.startswith(f"{folder / 'model_card.md'} is there and no card of other.safetensors: give an --out in")
    assert not (folder / "other.safetensors").exists()
    out = f"--out={tmp_path / 'x.safetensors'}"
    assert "give --learnt, too" in refused(capsys, "export", f"--run={folder / 'run'}", "--licence=x", out)


def test_the_kind_of_the_pretrained_file_does_not_matter(made, head, tmp_path):
    """The same weights under timm's names, and in a run that began with them."""
    folder, parameters = made
    timm = write_backbone(tmp_path / "timm.safetensors", parameters)
    expected = rounded(parameters)
    for pretrained in (timm, folder / "run", folder / "pretrained.npz"):
        params = traverse_util.flatten_dict(load_trained(head, pretrained=pretrained).params, sep="/")
        assert params.keys() == expected.keys()
        for name, value in params.items():
            assert value.dtype == np.float32
            np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_a_run_on_a_copy_in_float16_is_learnt_on_the_whole_file_too(made, tmp_path):
    """The weights that come back are those that the run had: the file's, rounded as in the copy."""
    folder, parameters = made
    halves = {name: x.astype(np.float16).astype(np.float32) for name, x in parameters.items()}
    copy = write_backbone(tmp_path / "copy.npz", {name: x.astype(np.float16) for name, x in halves.items()})
    learnt = {name: halves[name] + np.float32(0.25) for name in learnt_names(parameters)}
    run = write_run(config_of(tmp_path, copy), halves | learnt)
    for pretrained in (copy, folder / "pretrained.npz"):
        saved, _ = export_learnt(run, tmp_path / "x.safetensors", pretrained=pretrained)
        assert saved.params.keys() == learnt_names(parameters)
        for other in (copy, folder / "pretrained.npz"):
            params = load_trained(tmp_path / "x.safetensors", pretrained=other).params
            for name, value in traverse_util.flatten_dict(params, sep="/").items():
                np.testing.assert_array_equal(value, rounded(halves | learnt)[name], err_msg=name)


def test_what_was_frozen_but_is_in_no_file_is_written(made, tmp_path):
    """A part of the head that the pretrained file has not, and a position embedding resized from that of the file."""
    folder, parameters = made
    frozen = {"model.image_size": 32, "optimizer.frozen": "^backbone/|^head/proj_patch"}
    config = config_of(tmp_path, folder / "pretrained.npz", **frozen)
    changed = {**random_parameters(from_config(config), 2)}
    changed |= {name: x for name, x in parameters.items() if name.startswith("backbone/") and name != POSITIONS}
    write_backbone(tmp_path / "pretrained.npz", parameters)
    saved, _ = export_learnt(
        write_run(config, changed), tmp_path / "head.safetensors", pretrained=tmp_path / "pretrained.npz"
    )
    assert saved.params.keys() == {POSITIONS, *(name for name in parameters if name.startswith("head/"))}
    params = traverse_util.flatten_dict(
        load_trained(tmp_path / "head.safetensors", pretrained=tmp_path / "pretrained.npz").params, sep="/"
    )
    np.testing.assert_array_equal(params[POSITIONS], changed[POSITIONS].astype(np.float16).astype(np.float32))


def test_all_weights_can_be_written_into_one_file_again(made, head, tmp_path):
    folder, parameters = made
    whole = tmp_path / "whole.safetensors"
    cli.run("export", [f"--run={head}", f"--pretrained={folder / 'pretrained.npz'}", f"--out={whole}"])
    for name, value in load_trained(whole).params["head"].items():
        np.testing.assert_array_equal(value, rounded(parameters)[f"head/{name}"])


def refused(capsys, command, *arguments):
    """The one line that a command says before it leaves with 2."""
    with pytest.raises(SystemExit) as left:
        cli.run(command, [str(argument) for argument in arguments])
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("error: ")


def other_values(parameters):
    """Every number, of one array of the backbone one number only, changed in its last bit."""
    name = "backbone/Transformer/encoderblock_1/MlpBlock_3/Dense_0/bias"
    changed = parameters[name].copy()
    changed[3] = np.nextafter(changed[3], np.float32(9))
    return {**parameters, name: changed}


def smaller(parameters):
    return {name: x[..., :8] for name, x in parameters.items() if x.ndim}


OTHERS = {
    "bit": (other_values, "1 of 36 arrays are others (backbone/Transformer/encoderblock_1/MlpBlock_3/Dense_0/bias)"),
    "size": (smaller, "24 of 36 arrays are others"),
    "part": (lambda parameters: {"backbone/cls": parameters["backbone/cls"]}, "35 of 36 arrays are others"),
}


@pytest.mark.parametrize(("change", "what"), OTHERS.values(), ids=OTHERS)
def test_other_weights_are_refused_by_name(made, head, tmp_path, capsys, change, what):
    other = write_backbone(tmp_path / "other.npz", change(made[1]))
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    line = refused(
        capsys, "predict", f"--run={head}", f"--pretrained={other}", tmp_path / "a.png", f"--out={tmp_path}/o"
    )
    assert line.startswith(f"{other} is not what {head} was learnt on (AugReg file pretrained.npz): {what}")
    assert line.endswith("give that file by --pretrained")


def test_what_is_missing_or_too_much_is_one_line(made, head, tmp_path, capsys):
    folder, parameters = made
    run, npz = folder / "run", folder / "pretrained.npz"
    assert refused(capsys, "evaluate", f"--run={head}") == (
        f"{head} holds only what was learnt on AugReg file pretrained.npz: give that file by --pretrained"
    )
    assert refused(capsys, "evaluate", f"--run={head}", "--pretrained=none.npz") == (
        "--pretrained=none.npz does not exist: give the weights that the model was learnt on"
    )
    with pytest.raises(
        UserError, match=r"there is no file none.npz: .* was learnt on AugReg file pretrained.npz; give"
    ):
        load_trained(head, pretrained="none.npz")
    whole = write_rounded(folder, tmp_path / "whole.safetensors", parameters)
    for model in (run, whole):
        line = refused(capsys, "evaluate", f"--run={model}", f"--pretrained={npz}")
        assert line == f"{model} has all its weights: leave --pretrained={npz} out"
    (tmp_path / "text.npz").write_text("no weights")
    assert "cannot read" in refused(capsys, "evaluate", f"--run={head}", f"--pretrained={tmp_path / 'text.npz'}")


def test_a_training_does_not_start_from_it(made, head):
    run = from_config(config_of(made[0], head))
    with pytest.raises(UserError, match="holds only what was learnt on AugReg file pretrained.npz: start from a run"):
        check_pretrained(head, state_layout(run, make_mesh(1, 1, jax.devices()[:1])).params, run.vit, tiny.NAMES)


def test_runs_of_which_nothing_can_be_left_out_are_refused(made, head, tmp_path, capsys):
    folder, parameters = made
    out = f"--out={tmp_path / 'x.safetensors'}"
    other = write_backbone(tmp_path / "other.npz", random_parameters(from_config(config_of(tmp_path, "")), 7))
    line = refused(capsys, "export", f"--run={folder / 'run'}", "--learnt", out, f"--pretrained={other}")
    assert line.startswith(f"{folder / 'run'} has no weights as {other} has them: give the file that it began with by")
    scratch = write_run(config_of(tmp_path / "scratch", ""), parameters)
    line = refused(capsys, "export", f"--run={scratch}", "--learnt", out)
    assert line == f"{scratch} began from scratch: no other file has its weights, export all (without --learnt)"
    large = {**parameters, "head/gamma": np.float32(7e4)}
    large = write_run(config_of(tmp_path / "large", folder / "pretrained.npz"), large)
    line = refused(capsys, "export", f"--run={large}", "--learnt", out)
    assert line == f"{large}: float16 cannot hold head/gamma: export all in float32 (without --learnt)"
    line = refused(capsys, "export", f"--run={head}", "--learnt", out, f"--pretrained={folder / 'pretrained.npz'}")
    assert line == f"{head} is a file: --learnt takes the folder of a run or of a checkpoint"
    assert "leave one out" in refused(capsys, "export", f"--run={folder / 'run'}", "--learnt", "--memory", out)
    assert not (tmp_path / "x.safetensors").exists()


def damaged(change):
    """The header of a file changed."""

    def damage(path):
        content = path.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        change(header["__metadata__"])
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])

    return damage


DAMAGE = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "byte": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"),
    "digests": damaged(lambda metadata: metadata.update(frozen=metadata["frozen"].replace("a", "b", 1))),
    "source": damaged(lambda metadata: metadata.update(pretrained="AugReg file other.npz")),
    "no list": damaged(lambda metadata: metadata.pop("frozen")),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_one_line(made, head, tmp_path, capsys, damage):
    path = tmp_path / "head.safetensors"
    path.write_bytes(head.read_bytes())
    damage(path)
    line = refused(capsys, "evaluate", f"--run={path}", f"--pretrained={made[0] / 'pretrained.npz'}")
    assert str(path) in line
    assert "damaged" in line
