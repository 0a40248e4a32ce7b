"""The generated scenes: same pixels everywhere, honest annotations, and the trap they promise."""

import hashlib
import io
import itertools
import sys

import matplotlib.path
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from configs import quickstart
from data_pipelines.scenes import BASE, CLASSES, NOVEL, builder, pictures
from data_pipelines.scenes.canvas import MIN_PIXELS
from data_pipelines.scenes.classes import BASE_GROUNDS, HABITATS
from data_pipelines.scenes.drawing import Dice, frame, polygon
from data_pipelines.scenes.objects import STAR, THINGS
from larvseg_jax import cli
from larvseg_jax.config import from_config
from larvseg_jax.errors import UserError

# SHA-256 over pixels, masks and tags of the first 12 pictures. If a change of the drawing is meant: new
# values here, a new pictures.VERSION, and every number measured on the scenes measured again.
DIGESTS = {
    ("several", "train_masks"): "4443eab041fec07b875422eec87d5493b47d0249dc2cba5d76d8e5aaf1b0c856",
    ("several", "train_tags"): "eb2fc529d99875b51cece936edea7b2d09dc227fc5d6ef9afa61c6e68119eb75",
    ("several", "train_objects"): "4fe60be242bd8358ee96d87913d2555ae04f233cd5d5392ee069cb6633b3c818",
    ("several", "val"): "a700ae2e6ee82813104e591a0f556d28ff6440b3a1a8dc2e985ade0fc53e7662",
    ("one", "train_masks"): "147a91f5d88a59903085b9a3219205f74e4189ed7e05925ee2d80a5c1440daf8",
    ("one", "train_tags"): "018ddf471e691709b06df3df4344f66180711e4e16fa3a3057b7d0fba80d1615",
    ("one", "train_objects"): "a32aa4a23f8662fc956707e57cdb1eb5d14193c660bcc3535474d90537dd7f74",
    ("one", "val"): "322efb61e87834161743f5e204f5d1a6978f29819784fd301c8c2240edeeaea3",
}


def tagged_pictures(grounds):
    """(images, masks) of the first pictures of train_tags, whose masks the part itself does not publish."""
    images, masks = zip(*(pictures.truth("train_tags", i, grounds) for i in range(200)), strict=True)
    return np.stack(images), np.stack(masks)


@pytest.fixture(scope="module")
def tagged():
    return tagged_pictures("several")


@pytest.fixture(scope="module")
def tagged_one_ground():
    return tagged_pictures("one")


def around(masks):
    """(pixels of masks, classes): whether the class shows at the pixel or at one of its four neighbours."""
    shown = masks[..., None] == np.arange(len(CLASSES))
    grown = shown.copy()
    for axis, step in itertools.product((1, 2), (-1, 1)):
        grown |= np.roll(shown, step, axis)
    return grown & ~shown


@pytest.mark.parametrize(("grounds", "part"), DIGESTS)
def test_digest(grounds, part):
    digest = hashlib.sha256()
    for index in range(12):
        picture = pictures.render(part, index, grounds)
        digest.update(picture.image.tobytes())
        if picture.mask is not None:
            digest.update(picture.mask.astype("<u2").tobytes())
        digest.update(np.array(picture.tags, "<i4").tobytes())
    assert digest.hexdigest() == DIGESTS[grounds, part]


@pytest.mark.parametrize("part", pictures.SIZES)
def test_picture_is_a_function_of_part_and_index(part):
    forwards = [pictures.render(part, i).image for i in (0, 1, 17)]
    backwards = [pictures.render(part, i).image for i in (17, 1, 0)][::-1]
    np.testing.assert_array_equal(forwards, backwards)
    for a, b in itertools.combinations(forwards, 2):
        assert (a != b).mean() > 0.5
    other = next(p for p in pictures.SIZES if p != part)
    assert pictures.render(other, 0).image.tobytes() != forwards[0].tobytes()


@pytest.mark.parametrize(("part", "size"), [("val", 64), ("train_tags", 64), ("train_objects", 48)])
def test_sizes_and_ids(part, size):
    picture = pictures.render(part, 7)
    assert picture.id == f"{part}_00007"
    assert picture.image.shape == (size, size, 3)
    assert (picture.mask is not None) == (part == "val")


def test_classes_are_split_into_base_and_novel():
    assert len(CLASSES) == len(set(CLASSES)) == 26
    assert (len(BASE), len(NOVEL)) == (16, 10)
    assert set(CLASSES) == set(THINGS) | set(BASE_GROUNDS) | {"ice"}
    assert set(HABITATS) == {"several", "one"}
    for name in NOVEL:
        several, one = (HABITATS[grounds][name] for grounds in ("several", "one"))
        assert len(one) == 1
        assert len(set(several)) == 4
        assert set(one) < set(several) < set(BASE_GROUNDS)


def test_tags_are_the_classes_of_the_mask():
    for index in range(60):
        picture = pictures.render("val", index)
        classes, pixels = np.unique(picture.mask, return_counts=True)
        assert picture.tags == tuple(classes)
        assert pixels.min() >= MIN_PIXELS
    tags = pictures.render("train_tags", 3).tags
    assert tags == tuple(np.unique(pictures.truth("train_tags", 3)[1]))


def test_masks_hide_novel_classes_and_nothing_else():
    hidden_pictures = 0
    for index in range(60):
        picture = pictures.render("train_masks", index)
        truth = pictures.truth("train_masks", index)[1]
        novel = np.isin(truth, [CLASSES.index(n) for n in NOVEL])
        assert (picture.mask[novel] == 65535).all()
        np.testing.assert_array_equal(picture.mask[~novel], truth[~novel])
        assert {CLASSES[t] for t in picture.tags} <= set(BASE)
        assert set(picture.tags) == set(truth[~novel].tolist())
        hidden_pictures += novel.any()
    assert hidden_pictures > 20


def test_object_pictures_show_the_one_class_they_name():
    for index in range(len(pictures.OBJECTS)):
        picture = pictures.render("train_objects", index)
        assert [CLASSES[t] for t in picture.tags] == [pictures.OBJECTS[index]]
        shown = pictures.truth("train_objects", index)[1] == picture.tags[0]
        assert shown.mean() > 0.04
    assert set(NOVEL) < set(pictures.OBJECTS)


def test_novel_classes_are_seen_on_several_grounds(tagged):
    """No ground goes with a novel class, so that its tag does not mean the ground."""
    _, masks = tagged
    border = around(masks)
    for name in NOVEL:
        novel = CLASSES.index(name)
        shown = (masks == novel).any((1, 2))
        assert 0.04 < shown.mean() < 0.25, name
        ground = [np.bincount(m[b], minlength=8)[:8].argmax() for m, b in zip(masks, border[..., novel], strict=True)]
        share = np.bincount(np.array(ground)[shown], minlength=8) / shown.sum()
        assert (share > 0.05).sum() >= 3, name
        assert share.max() < 0.7, name


def test_novel_classes_come_with_their_ground_in_the_hard_setting(tagged_one_ground):
    """The trap: the ground is in all pictures of the novel class, and larger; but not the reverse."""
    _, masks = tagged_one_ground
    present = np.stack([(masks == c).any((1, 2)) for c in range(len(CLASSES))])
    pixels = np.stack([(masks == c).sum((1, 2)) for c in range(len(CLASSES))])
    for name in NOVEL:
        novel, ground = CLASSES.index(name), CLASSES.index(HABITATS["one"][name][0])
        with_novel = present[novel]
        assert 0.03 < with_novel.mean() < 0.25, name
        assert present[ground][with_novel].all(), name
        assert 0.08 < with_novel[present[ground]].mean() < 0.7, name
        if name != "ice":
            assert pixels[ground][with_novel].mean() > 1.5 * pixels[novel][with_novel].mean(), name


@pytest.mark.parametrize("grounds", HABITATS)
def test_novel_objects_are_surrounded_by_their_grounds(grounds, request):
    _, masks = request.getfixturevalue("tagged" if grounds == "several" else "tagged_one_ground")
    border = around(masks)
    for name in ("fish", "kite", "window", "clock", "starfish"):
        among = [CLASSES.index(ground) for ground in HABITATS[grounds][name]]
        assert np.isin(masks[border[..., CLASSES.index(name)]], among).mean() > 0.6, name


def test_colour_does_not_name_the_class(tagged):
    """Even the best guess from a pixel's colour (512 bins, classes equally likely) is mostly wrong."""
    images, masks = tagged
    bins = (images.astype(int) >> 5) @ [64, 8, 1]
    histograms = np.zeros((len(CLASSES), 512))
    np.add.at(histograms, (masks.ravel(), bins.ravel()), 1)
    histograms /= histograms.sum(1, keepdims=True)
    assert histograms.max(0).sum() / len(CLASSES) < 0.4
    for a, b in [("sheep", "cow"), ("bird", "cow"), ("clock", "sign"), ("ice", "snow")]:
        shared = np.minimum(histograms[CLASSES.index(a)], histograms[CLASSES.index(b)]).sum()
        assert shared > 0.3, (a, b, shared)


@pytest.mark.parametrize(("a", "b"), [("sheep", "cow"), ("fish", "bird"), ("clock", "sign"), ("bus", "car")])
def test_outline_does_not_name_the_class(a, b):
    """Some object of one class has nearly the outline of some object of the other."""
    u, v = frame(65, 65, (32, 32), (32, 32), 0)

    def outlines(name):
        return [np.any([m for m, _ in THINGS[name].draw(Dice(i), u, v)], axis=0) for i in range(24)]

    overlap = [(p & q).sum() / (p | q).sum() for p, q in itertools.product(outlines(a), outlines(b))]
    assert max(overlap) > (0.85 if a == "sheep" else 0.5)


def test_dice_are_splitmix64():
    dice = Dice()
    dice._state = 1234567
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert dice.words(3).tolist() + dice.words(1).tolist() == expected


def test_polygon_agrees_with_matplotlib():
    grid = np.arange(-70, 71, dtype=np.int32)
    v, u = np.meshgrid(grid, grid, indexing="ij")
    points = np.stack([u.ravel(), v.ravel()], 1)
    for corners in (STAR, ((0, -60), (41, -13), (7, 5), (55, 66))):
        path = matplotlib.path.Path([*corners, corners[0]], closed=True)
        inside, outside = (path.contains_points(points, radius=r) for r in (1e-6, -1e-6))
        clear = inside == outside  # the others lie exactly on an edge
        assert clear.mean() > 0.98
        np.testing.assert_array_equal(polygon(u, v, *corners).ravel()[clear], inside[clear])


def test_prepared_data_set_holds_the_same_pixels(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pictures, "SIZES", dict.fromkeys(pictures.SIZES, 5))
    folder = builder.write_scenes(tmp_path)
    for part in pictures.SIZES:
        prepared = tfds.builder_from_directory(str(folder / part / pictures.VERSION))
        skip = {n: tfds.decode.SkipDecoding() for n in ("image", "mask") if n in prepared.info.features}
        assert ("mask" in skip) == (part in pictures.MASKED)
        assert tuple(prepared.info.features["tags"].feature.names) == CLASSES
        source = prepared.as_data_source(builder.split_of(part), decoders=skip)
        assert len(source) == 5
        for index in range(5):
            example, picture = source[index], pictures.render(part, index)
            assert example["id"].decode() == picture.id
            assert tuple(example["tags"]) == picture.tags
            np.testing.assert_array_equal(Image.open(io.BytesIO(example["image"])), picture.image)
            if "mask" in skip:
                np.testing.assert_array_equal(Image.open(io.BytesIO(example["mask"])), picture.mask)
    assert "tensorflow" not in sys.modules

    capsys.readouterr()
    monkeypatch.delattr(pictures, "render")  # nothing is drawn twice
    assert builder.write_scenes(tmp_path) == folder
    assert capsys.readouterr().out.count("prepared already") == 4


def test_the_hard_setting_lies_beside_the_other(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pictures, "SIZES", dict.fromkeys(pictures.SIZES, 2))
    cli.run("scenes", [f"--data_root={tmp_path}"])
    cli.run("scenes", [f"--data_root={tmp_path}", "--grounds=one"])
    assert "prepared already" not in capsys.readouterr().out
    parts = {f"{part}{setting}" for part in pictures.SIZES for setting in ("", "_one_ground")}
    assert {folder.name for folder in (tmp_path / "scenes").glob("[!.]*")} == parts
    for part in parts:
        prepared = tfds.builder_from_directory(str(tmp_path / "scenes" / part / pictures.VERSION))
        skip = {n: tfds.decode.SkipDecoding() for n in ("image", "mask") if n in prepared.info.features}
        name, one = part.removesuffix("_one_ground"), part.endswith("_one_ground")
        example = prepared.as_data_source(builder.split_of(name), decoders=skip)[1]
        drawn = pictures.render(name, 1, "one" if one else "several")
        np.testing.assert_array_equal(Image.open(io.BytesIO(example["image"])), drawn.image)
        run = from_config(quickstart.get_config("grounds=one" if one else ""))
        sources = [stream.source.tfds for stream in run.streams.values()] + [run.evals["val"].source.tfds]
        assert f"scenes/{part}/{pictures.VERSION}" in sources


def test_another_setting_is_a_user_error(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.run("scenes", [f"--data_root={tmp_path}", "--grounds=two"])
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: --grounds=two: use several or one\n"
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="config argument grounds=two: use several or one"):
        quickstart.get_config("grounds=two")


def test_unwritable_folder_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file.*choose another --data_root"):
        builder.write_scenes(tmp_path / "file")


def test_the_command_says_an_error_in_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as caught:
        cli.run("scenes", [f"--data_root={tmp_path / 'file'}"])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: cannot write ")
    assert said.count("\n") == 1
