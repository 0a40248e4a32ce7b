"""`python -m data_pipelines.prepare`."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines import prepare as command
from larvseg_jax import cli
from larvseg_jax.vocabulary.class_lists import class_list
from tests.data_pipelines.mask_trees import write

LIST = "ImageSets/Segmentation/val.txt"


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
        assert name == "captions" or len(class_list(name)) > 0


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(("limit", "left_out"), [("1", ["large", "large_mask"]), ("2", [])])
def test_larger_photos_and_masks_than_asked_for_are_left_out(limit, left_out, tmp_path, capsys):
    """In every process: two of a million pixels and a tenth, and one beside whose small photo the mask is large."""
    small, large = np.zeros((20, 30), np.uint8), np.zeros((1000, 1100), np.uint8)
    masks = {"small": small, "large": large, "large_mask": large}
    photos = {"small": small, "large": large, "large_mask": large if limit == "2" else small}
    for name, mask in masks.items():
        files = {
            f"JPEGImages/{name}.jpg": png(np.stack([photos[name]] * 3, axis=-1)),
            f"SegmentationClass/{name}.png": png(mask),
        }
        write(tmp_path / "in", files)
    lists = {f"ImageSets/Segmentation/{split}.txt": "\n".join(masks) for split in ("train", "val")}
    write(tmp_path / "in", lists)
    given = [f"--from={tmp_path / 'in'}", f"--data_root={tmp_path}", "--workers=2", f"--max_megapixels={limit}"]
    cli.run("prepare", ["voc_20", *given])
    metadata = json.loads((tmp_path / "voc_20/1.0.0/metadata.json").read_text())
    for split in ("train", "val"):
        found = metadata["unreadable"][split]
        assert [Path(one["file"]).stem for one in found] == left_out
        assert all("are more than max_megapixels=1" in one["reason"] for one in found)
    photos_left = 3 - len(left_out)
    assert f"split train: {photos_left} photos" in capsys.readouterr().out


def test_an_interrupted_preparation_goes_on_with_the_same_limit_only(tmp_path, capsys):
    write(tmp_path / "in", {"JPEGImages/a.jpg": b"", "SegmentationClass/a.png": b"", LIST: "a"})
    given = ["voc_20", f"--from={tmp_path / 'in'}", f"--data_root={tmp_path}", "--workers=1"]
    for limit, message in (
        (None, "no readable photo for the split 'val'"),
        (None, "no readable photo for the split 'val'"),
        (9, "was begun with --max_megapixels=178: give the same, or delete"),
    ):
        with pytest.raises(SystemExit):
            cli.run("prepare", given + [f"--max_megapixels={limit}"] * bool(limit))
        assert message in capsys.readouterr().err
    plan = tmp_path / "voc_20/1.0.0.preparing/plan.json"
    old = json.loads(plan.read_text())
    del old["max_megapixels"]  # as they were before there was the flag
    plan.write_text(json.dumps(old))
    with pytest.raises(SystemExit):
        cli.run("prepare", given)
    assert "no readable photo for the split 'val'" in capsys.readouterr().err
