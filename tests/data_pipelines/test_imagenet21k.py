"""ImageNet-21K from folders, archives and lists: photos as they are in the wild, labels, releases."""

import io
import json
import tarfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from data_pipelines.builders import imagenet21k
from data_pipelines.builders.imagenet21k import ImageNet21k, ImageNet21kSubset124, ImageNet21kSubset585
from data_pipelines.builders.imagenet_release import release_of
from data_pipelines.builders.preparation import prepare
from data_pipelines.tfds_source import TfdsSource
from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary import Vocabulary
from larvseg_jax.vocabulary.class_lists import class_list

# Labels by hand, from the ascending list of 21,841.
LABELS = {"n00004475": 0, "n00005787": 1, "n02084071": 2167, "n15102455": 21839, "n15102894": 21840}
NOT_IN_THE_LIST = "n03931044"  # in TensorFlow's list of 21,843


def picture(seed, kind="JPEG", mode="RGB", size=(40, 30), **options):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


def turned(seed):
    exif = Image.Exif()
    exif[0x0112] = 8
    return picture(seed, exif=exif)


def photos(wnid, numbers=(2, 10, 1)):
    return {f"{wnid}_{n}.JPEG": picture(int(wnid[1:]) + n) for n in numbers}


ODD = {
    "n02084071_1.JPEG": picture(1, mode="CMYK"),
    "n02084071_2.JPEG": turned(2),
    "n02084071_3.JPEG": picture(3, "PNG"),
    "n02084071_4.JPEG": picture(4, "GIF"),
    "n02084071_5.JPEG": picture(5, mode="L"),
    "n02084071_6.JPEG": picture(6, progressive=True),
    "n02084071_7.JPEG": picture(7, "PNG", "RGBA"),
    "n02084071_8.JPEG": picture(8) + b"\0" * 100,  # bytes after the end
}
BROKEN = {
    "n02084071_9.JPEG": b"",
    "n02084071_91.JPEG": picture(9)[:-200],
    "n02084071_92.JPEG": b"<html>This photo is no longer available</html>",
}
TREE = {
    "n15102894": photos("n15102894"),
    "n02084071": {**ODD, **BROKEN},
    "n00005787": photos("n00005787", (7,)),
    "n15102455": {},
    "n00004475": photos("n00004475"),
}


def write_folders(root, tree):
    for wnid, files in tree.items():
        (root / wnid).mkdir(parents=True)
        for name, data in files.items():
            (root / wnid / name).parent.mkdir(parents=True, exist_ok=True)
            (root / wnid / name).write_bytes(data)


def write_tars(root, tree):
    root.mkdir(parents=True, exist_ok=True)
    for wnid, files in tree.items():
        with tarfile.open(root / f"{wnid}.tar", "w") as archive:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def records(directory):
    source = tfds.builder_from_directory(str(directory)).as_data_source(
        "train", decoders={"image": tfds.decode.SkipDecoding()}
    )
    return [
        (r["id"].decode(), r["image"], [int(t) for t in r["tags"]]) for r in (source[i] for i in range(len(source)))
    ]


def metadata(directory):
    return json.loads((directory / "metadata.json").read_text())


def whole(tree):
    """What ought to be stored, and its order: synsets ascending, names ascending in each."""
    return [
        (name.removesuffix(".JPEG"), tree[wnid][name], [LABELS[wnid]])
        for wnid in sorted(tree)
        for name in sorted(tree[wnid])
        if name not in BROKEN
    ]


@pytest.mark.parametrize("below", ["", "fall11_whole", "winter21_whole", "images"])
@pytest.mark.parametrize("write", [write_folders, write_tars])
def test_folders_and_archives(write, below, tmp_path, capsys):
    write(tmp_path / "root" / below, TREE)
    (tmp_path / "root" / below / "readme.txt").touch()
    directory = prepare(ImageNet21k, tmp_path / "root", tmp_path / "data")
    assert directory == tmp_path / "data" / "imagenet_21k" / "1.0.0"
    stored = records(directory)
    assert stored == whole(TREE)
    assert stored[0][0] == "n00004475_1"
    assert stored[-1][2] == [21840]
    said = metadata(directory)
    assert [entry["file"].replace(".tar", "") for entry in said["unreadable"]["train"]] == [
        f"n02084071/{name}" for name in BROKEN
    ]
    assert said["unreadable"]["train"][0]["reason"] == "empty file"
    counts = said["photos_per_class"]["train"]
    assert len(counts) == 21841
    assert {i: n for i, n in enumerate(counts) if n} == {0: 3, 1: 1, 2167: 8, 21840: 3}
    assert said["release"] == "partial"
    assert len(said["missing_synsets"]) == 21841 - 5
    assert "train" not in said["expected"]
    kind = "5 folders of photos" if write is write_folders else "5 archives"
    assert f"{kind} named by synset{f' in {below}/' if below else ''}\n" in capsys.readouterr().out


def test_odd_pictures_can_be_read_in_training(tmp_path):
    write_folders(tmp_path, TREE)
    directory = prepare(ImageNet21k, tmp_path, tmp_path / "data", workers=2)
    names = class_list("imagenet_21k").ids
    source = TfdsSource(directory, "train", Vocabulary(names, (), ()).label_set(()), masks=False, tags=True)
    examples = {example["id"]: example for example in (source[i] for i in range(len(source)))}
    assert {example["image"].shape for name, example in examples.items() if name != "n02084071_2"} == {(30, 40, 3)}
    assert examples["n02084071_2"]["image"].shape == (40, 30, 3)
    assert examples["n15102894_10"]["tags"].tolist() == [21840]
    expected = np.asarray(Image.open(io.BytesIO(picture(7, "PNG", "RGBA"))).convert("RGB"))
    np.testing.assert_array_equal(examples["n02084071_7"]["image"], expected)


def test_shards_hold_whole_synsets_in_order(tmp_path, monkeypatch):
    wnids = class_list("imagenet_21k").ids
    monkeypatch.setattr(imagenet21k, "_entries", lambda folder: list(wnids[::-1]))
    pieces = ImageNet21k(data_dir=tmp_path / "data").pieces(tmp_path)["train"]
    assert [name for piece in pieces for name in piece.names] == sorted(wnids)
    assert {len(piece.names) for piece in pieces[:-1]} == {25}
    assert len(pieces) == 874  # fewer than the 1,024 files a process may usually open
    facts = ImageNet21k(data_dir=tmp_path / "data").facts(tmp_path)
    assert facts["expected"] == {"train": 14_197_122}
    assert (facts["release"], facts["closest_release"], facts["missing_synsets"]) == ("fall-2011", None, [])


def test_a_selection_takes_its_synsets_only(tmp_path):
    ids = class_list("imagenet21k_subset_124").ids
    tree = {ids[5]: photos(ids[5]), ids[100]: photos(ids[100]), "n00004475": photos("n00004475")}
    write_folders(tmp_path / "fall11_whole", tree)
    stored = records(prepare(ImageNet21kSubset124, tmp_path, tmp_path / "data"))
    assert sorted((name, tags) for name, _, tags in stored) == sorted(
        (f"{ids[label]}_{n}", [label]) for label in (5, 100) for n in (1, 2, 10)
    )


@pytest.mark.parametrize("write", [write_folders, write_tars])
@pytest.mark.parametrize("place", ["", "fall11_whole"])
def test_the_list_of_a_selection_says_which_photos(write, place, tmp_path, capsys):
    ids = class_list("imagenet21k_subset_585").ids
    tree = {ids[584]: photos(ids[584]), ids[300]: photos(ids[300])}
    write(tmp_path / "fall11_whole", tree)
    lines = [f"{ids[584]}_10", f"{ids[300]}_2", f"{ids[300]}_77", f"{ids[584]}_1", ""]
    (tmp_path / place / "ImageNet585.txt").write_text("\n".join(lines))
    directory = prepare(ImageNet21kSubset585, tmp_path, tmp_path / "data")
    stored = {name: (data, tags) for name, data, tags in records(directory)}
    assert stored == {
        f"{wnid}_{n}": (tree[wnid][f"{wnid}_{n}.JPEG"], [label])
        for wnid, n, label in ((ids[584], 10, 584), (ids[584], 1, 584), (ids[300], 2, 300))
    }
    said = metadata(directory)
    assert said["expected"] == {"train": 4}
    suffix = ".tar" if write is write_tars else ""
    assert said["unreadable"]["train"] == [
        {"file": f"{ids[300]}{suffix}/{ids[300]}_77", "reason": "listed, but not there"}
    ]
    assert set(said["missing_synsets"]) == set(ids) - tree.keys()
    output = capsys.readouterr().out
    assert "2 " in output
    assert "named by synset in fall11_whole/, listed in ImageNet585.txt\n" in output
    assert "of its 585 synsets 583 (" in output


def test_a_broken_list_is_named(tmp_path):
    ids = class_list("imagenet21k_subset_124").ids
    write_folders(tmp_path, {ids[0]: photos(ids[0])})
    (tmp_path / "ImageNet124.txt").write_text(f"{ids[0]}_1\nn123_5\n")
    with pytest.raises(UserError, match=r"ImageNet124\.txt, line 2: 'n123_5' is no photo such as n02084071_1234"):
        prepare(ImageNet21kSubset124, tmp_path, tmp_path / "data")


def test_folders_that_are_no_synset_are_reported(tmp_path, capsys):
    tree = {"n00004475": photos("n00004475"), NOT_IN_THE_LIST: photos(NOT_IN_THE_LIST), "other": {}}
    write_folders(tmp_path, tree)
    (tmp_path / "n00004475" / "notes.xml").touch()
    (tmp_path / "n00004475" / "._n00004475_1.JPEG").touch()
    directory = prepare(ImageNet21k, tmp_path, tmp_path.parent / f"{tmp_path.name}-data")
    assert len(records(directory)) == 3
    assert metadata(directory)["unknown_synsets"] == [NOT_IN_THE_LIST, "other"]
    assert metadata(directory)["unreadable"] == {"train": []}
    output = capsys.readouterr().out
    assert "left out, as they are no synset of ImageNet-21K: 2 (n03931044, other)\n" in output
    assert "no whole release, the closest is 21k-p winter-2021: 10,450 (n00005787, n00006484, n00007846, ...)" in output


@pytest.mark.parametrize("write", [write_folders, write_tars])
def test_what_other_programs_leave_is_passed_over(write, tmp_path):
    files = photos("n00004475")
    for name in ("@eaDir/n00004475_9.JPEG", "__MACOSX/n1/n00004475_8.JPEG", ".ipynb_checkpoints/n00004475_7.JPEG"):
        files[name] = files["n00004475_1.JPEG"]
    write(tmp_path / "in", {"n00004475": files})
    (tmp_path / "in" / "@eaDir").mkdir()
    directory = prepare(ImageNet21k, tmp_path / "in", tmp_path / "data")
    assert len(records(directory)) == 3
    assert metadata(directory)["unknown_synsets"] == []


def test_folders_go_before_archives_of_the_same_name(tmp_path):
    # The system lists files in the order of their creation, backwards or at random: both kinds come first somewhere.
    write_tars(tmp_path, {"n00004475": photos("n00004475", (1,)), "n15102455": photos("n15102455", (1,))})
    write_folders(tmp_path, {wnid: photos(wnid, (1, 2)) for wnid in ("n00004475", "n00005787")})
    write_tars(tmp_path, {"n00005787": photos("n00005787", (1,))})
    stored = records(prepare(ImageNet21k, tmp_path, tmp_path / "data"))
    assert [name for name, _, _ in stored] == [
        "n00004475_1", "n00004475_2", "n00005787_1", "n00005787_2", "n15102455_1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("damage", "survivors", "reported"),
    [
        (lambda data: b"", (), ["n00004475.tar"]),
        (lambda data: b"<html>no such file</html>" * 50, (), ["n00004475.tar"]),
        (lambda data: data[:4000], (1,), ["n00004475.tar/n00004475_2.JPEG", "n00004475.tar"]),
        (lambda data: data[:6000], (1, 2), ["n00004475.tar/n00004475_3.JPEG", "n00004475.tar"]),
        (lambda data: data[: 512 + 2048 + 200], (1,), ["n00004475.tar"]),  # in a header
        (lambda data: data[: 512 + 2048], (1,), ["n00004475.tar"]),  # right before it
    ],
)
def test_archives_cut_short_are_reported(damage, survivors, reported, tmp_path):
    files = {f"n00004475_{n}.JPEG": picture(n)[:-2].ljust(2046, b"\0") + b"\xff\xd9" for n in (1, 2, 3)}
    assert {len(data) for data in files.values()} == {2048}
    write_tars(tmp_path, {"n00004475": files, "n00005787": photos("n00005787", (1,))})
    path = tmp_path / "n00004475.tar"
    path.write_bytes(damage(path.read_bytes()))
    directory = prepare(ImageNet21k, tmp_path, tmp_path / "data")
    assert [name for name, _, _ in records(directory)] == [*(f"n00004475_{n}" for n in survivors), "n00005787_1"]
    assert [entry["file"] for entry in metadata(directory)["unreadable"]["train"]] == reported


FALL = class_list("imagenet_21k").ids
P_FALL = class_list("imagenet_21k_p_fall11").ids
P_WINTER = class_list("imagenet_21k_p_winter21").ids
AUTHORS = class_list("imagenet_11k").ids
_IN_FALL, _IN_P_WINTER = set(FALL), set(P_WINTER)
NOT_P_WINTER = [wnid for wnid in FALL if wnid not in _IN_P_WINTER]
WINTER = [*P_WINTER, *NOT_P_WINTER[: 19167 - len(P_WINTER)]]  # a set of its size and inclusions


@pytest.mark.parametrize(
    ("present", "name", "photos"),
    [
        (FALL, "fall-2011", 14_197_122),
        ((*FALL, NOT_IN_THE_LIST, "n09859684", "folder"), "fall-2011", 14_197_122),
        (WINTER, "winter-2021", 13_153_500),
        (P_FALL, "21k-p fall-2011", 11_797_632),
        (P_WINTER, "21k-p winter-2021", 11_060_223),
        (AUTHORS, "larvseg 11k", None),
        ([wnid for wnid in AUTHORS if wnid in _IN_FALL], "larvseg 11k", None),
        (WINTER[1:], "partial", None),
        (WINTER[:-1], "partial", None),
        ((*WINTER[1:], NOT_P_WINTER[-1]), "partial", None),  # its number, but not all of 21K-P
        (NOT_P_WINTER, "partial", None),
        ((), "partial", None),
    ],
)
def test_releases(present, name, photos):
    release = release_of(present)
    assert (release.name, release.photos) == (name, photos)
    assert (release.closest is None) == (name != "partial")


def test_the_closest_release_and_what_it_lacks():
    assert [len(x) for x in (FALL, P_FALL, P_WINTER, AUTHORS, WINTER)] == [21841, 11221, 10450, 11276, 19167]
    release = release_of(FALL[:100] + FALL[103:])
    assert (release.closest, release.missing) == ("fall-2011", FALL[100:103])
    release = release_of([*P_WINTER[2:], "n00004475"])
    assert (release.closest, release.missing) == ("21k-p winter-2021", tuple(sorted(P_WINTER[:2])))


@pytest.mark.parametrize("builder", [ImageNet21k, ImageNet21kSubset124])
def test_a_folder_without_synsets_is_refused(builder, tmp_path):
    (tmp_path / "dogs").mkdir()
    with pytest.raises(UserError, match=r"holds no synset folder such as n02084071/ and no archive .* fall11_whole"):
        prepare(builder, tmp_path, tmp_path / "data")
    (tmp_path / NOT_IN_THE_LIST).mkdir()
    with pytest.raises(UserError, match=f"holds none of the .* synsets of {builder.CLASS_LIST}"):
        prepare(builder, tmp_path, tmp_path / "data")


def test_synsets_without_photos_are_refused(tmp_path):
    write_folders(tmp_path, {"n00004475": {}, "n00005787": {}})
    with pytest.raises(UserError, match=r"no readable photo for the split 'train' \(0 unreadable\): complete the"):
        prepare(ImageNet21k, tmp_path, tmp_path / "data")
