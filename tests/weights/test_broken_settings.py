"""Models whose settings are not what they should be: one line and exit code 2, whatever they lack or claim."""

import copy
import json
import tarfile

import pytest

from larvseg_jax import cli
from larvseg_jax.config import from_config
from larvseg_jax.errors import UserError
from larvseg_jax.old_settings import upgraded, upgraded_data
from larvseg_jax.trained import load_trained
from larvseg_jax.weights.safetensors_file import SavedModel, load_safetensors, save_safetensors
from tests import tiny
from tests.conftest import REPOSITORY

CHECKPOINT = REPOSITORY / "tests/data/version_0_1.tar.xz"
EXPORTED = REPOSITORY / "tests/data/version_0_1.safetensors"


def changed(settings, path, value):
    """The settings with one value changed, or left out where it is None."""
    settings = copy.deepcopy(settings)
    *sections, name = path.split(".")
    section = settings
    for each in sections:
        section = section[each]
    if value is None:
        del section[name]
    else:
        section[name] = value
    return settings


NETWORKS = {
    "model.depth": 10**9,
    "model.width": 2**30,
    "model.num_heads": 0,
    "model.image_size": 2**40,
    "model.patch_size": 3,
    "model.stem": "none",
    "model": [],
    "method": "larvseg",
    "method.name": "os.path",
    "method.ca_classifier": 3,
    "method.ca_classifier.memory_bank_size": 2**60,
}


@pytest.mark.parametrize(("path", "value"), [*NETWORKS.items(), ("model.width", None), ("method.name", None)])
def test_a_file_whose_settings_do_not_fit_is_refused(tmp_path, path, value):
    model = load_safetensors(EXPORTED)
    object.__setattr__(model.metadata, "settings", changed(model.metadata.settings, path, value))
    save_safetensors(tmp_path / "x.safetensors", SavedModel(model.params, model.memory, model.metadata))
    with pytest.raises(UserError) as caught:
        load_trained(tmp_path / "x.safetensors", memory=True)
    assert "\n" not in str(caught.value)


RECORDS = {
    "settings.model": None,
    "settings.optimizer": None,
    "settings.model.width": 3,
    "settings.streams": [1],
    "settings.streams.masks.kind": None,
    "settings.streams.masks.scale": 3,
    "settings.eval": 3,
    "settings.mesh": {},
    "settings.vocabulary": None,
    "settings.vocabulary.classes": ["cat"],
    "settings": None,
    "classes": 3,
    "arrays": [],
}


@pytest.mark.parametrize(("path", "value"), RECORDS.items())
def test_a_checkpoint_whose_record_is_not_whole_is_not_exported(tmp_path, capsys, path, value):
    with tarfile.open(CHECKPOINT) as archive:
        archive.extractall(tmp_path / "run/checkpoints", filter="data")
    file = tmp_path / "run/checkpoints/4/record/metadata"
    file.write_text(json.dumps(changed(json.loads(file.read_text()), path, value)))
    with pytest.raises(SystemExit) as caught:
        cli.run("export", ["--run", str(tmp_path / "run"), "--out", str(tmp_path / "m.safetensors")])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")


@pytest.mark.parametrize("value", [3, None, [], "x", {"kind": 3}, [[]]], ids=repr)
@pytest.mark.parametrize(
    "path", ["streams", "model", "method", "evals", "mesh", "vocabulary", "optimizer", "streams.masks"]
)
def test_a_section_that_is_none_is_named(path, value):
    config = changed(tiny.get_config().to_dict(), path, 0)
    config = changed(config, path, "" if value is None else value)
    with pytest.raises(UserError, match=path.rpartition(".")[2]):
        from_config(config)


@pytest.mark.parametrize("value", [3, None, [1], {"streams": 3}, {"mesh": {"rules": 3}}], ids=repr)
def test_what_is_no_settings_is_refused(value):
    with pytest.raises(UserError, match="no settings of a run"):
        upgraded(value)
    with pytest.raises(UserError, match="no settings of a run"):
        upgraded_data({"downsample_rate": 2, "streams.masks": value})
