"""`python -m data_pipelines.prepare`."""

import pytest

from data_pipelines import prepare as command
from larvseg_jax import cli
from larvseg_jax.vocabulary.class_lists import class_list


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["coco", "--from=."], "there is no data set 'coco': use one of coco_stuff_171, ade20k_150,"),
        (["ade20k_150", "--from=nowhere"], "there is no folder nowhere: give the one that holds the data set"),
        (["imagenet_21k", "--from=."], "holds no synset folder such as n02084071/"),
        (["imagenet_21k", "--from=.", "--workers=0"], "--workers=0: use 1 or more"),
    ],
)
def test_mistakes_at_the_command_line(arguments, message, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        cli.run("prepare", arguments)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_every_class_list_with_photos_has_a_builder():
    for name, builder in command.BUILDERS.items():
        assert builder.name == name
        assert len(class_list(name)) > 0
