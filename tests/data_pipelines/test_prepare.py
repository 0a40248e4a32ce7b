"""The engine that prepares downloads: records, shards, interruptions and unreadable files."""

import hashlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from data_pipelines.builders.download_builder import DownloadBuilder, Photo, Unreadable, each, in_pieces, read_file
from data_pipelines.builders.preparation import prepare
from data_pipelines.tfds_source import TfdsSource
from larvseg_jax.errors import UserError
from larvseg_jax.vocabulary import Vocabulary
from larvseg_jax.vocabulary.class_lists import class_list

REPOSITORY = Path(__file__).resolve().parents[2]
CLASSES = 847


class Pairs(DownloadBuilder):
    """Folders train/ and val/ of photos and 16-bit masks; two photos a shard.

    A file "wait" in the root makes the third shard wait, "fail" makes it fail, "die" ends its process.
    """

    CLASS_LIST = "ade20k_full_847"
    EXPECTED = {"train": 7, "val": 1}

    def layout(self, root):
        if not (root / "train").is_dir():
            raise UserError(f"{root} has no folder train")
        return "pairs"

    def pieces(self, root):
        names = {split: sorted(p.stem for p in (root / split).glob("*.jpg")) for split in ("train", "val")}
        return {split: [(str(root), split, *group) for group in in_pieces(all_, 2)] for split, all_ in names.items()}

    def photos(self, piece):
        root, split, *names = piece
        if names[0] == "p4":
            if (Path(root) / "wait").exists():
                (Path(root) / "waiting").write_text(str(os.getpid()))
                wait_until(lambda: not (Path(root) / "wait").exists())
            if (Path(root) / "fail").exists():
                raise UserError("p4 fails")
            if (Path(root) / "die").exists():
                os._exit(1)
        return each(lambda name: self.photo(Path(root, split), name), names)

    def photo(self, folder, name):
        image = read_file(folder / f"{name}.jpg")
        try:
            mask = np.asarray(Image.open(folder / f"{name}.png")).astype(np.uint16)
        except OSError as error:
            raise Unreadable(f"{folder.name}/{name}.png", error) from error
        return Photo(name, image, mask, file=f"{folder.name}/{name}.jpg")


def jpeg(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **options)
    return file.getvalue()


def photo(i):
    return jpeg(np.random.default_rng(i).integers(0, 256, (9 + i, 14, 3), dtype=np.uint8))


def mask(i):
    ids = np.random.default_rng(i).choice([3, 255, 256, 846, 65535], (9 + i, 14)).astype(np.uint16)
    ids[0, 0] = i
    return ids


def write_pair(root, i, split="train"):
    (root / split).mkdir(parents=True, exist_ok=True)
    (root / split / f"p{i}.jpg").write_bytes(photo(i))
    Image.fromarray(mask(i)).save(root / split / f"p{i}.png")


@pytest.fixture
def root(tmp_path):
    """Seven photos to train with, so four shards, and one for validation."""
    folder = tmp_path / "download"
    for i in range(7):
        write_pair(folder, i)
    write_pair(folder, 7, "val")
    return folder


def messages(directory, split="train"):
    """The records as they are stored, but for the order of their features, which TFDS leaves to chance."""
    source = tfds.builder_from_directory(str(directory)).as_data_source(
        split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
    return [tf_example_pb2.Example.FromString(source[i]) for i in range(len(source))]


def parsed(directory, split="train"):
    skip = {name: tfds.decode.SkipDecoding() for name in ("image", "mask")}
    source = tfds.builder_from_directory(str(directory)).as_data_source(split, decoders=skip)
    return [source[i] for i in range(len(source))]


def digests(directory):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in directory.iterdir()}


def metadata(directory):
    return json.loads((directory / "metadata.json").read_text())


def test_photos_masks_and_tags_survive(root, tmp_path):
    directory = prepare(Pairs, root, tmp_path / "data")
    assert directory == tmp_path / "data" / "ade20k_full_847" / "1.0.0"
    for split, numbers in (("train", range(7)), ("val", (7,))):
        records = parsed(directory, split)
        assert [record["id"].decode() for record in records] == [f"p{i}" for i in numbers]
        for i, record in zip(numbers, records, strict=True):
            assert record["image"] == photo(i)  # not one byte is encoded anew
            stored = np.asarray(Image.open(io.BytesIO(record["mask"])))
            assert stored.dtype == np.uint16
            np.testing.assert_array_equal(stored, mask(i))
            assert [int(t) for t in record["tags"]] == sorted(set(mask(i).ravel().tolist()) - {65535})
    said = metadata(directory)
    assert said["class_list"] == "ade20k_full_847"
    assert said["layout"] == "pairs"
    assert said["expected"] == {"train": 7, "val": 1}
    assert said["unreadable"] == {"train": [], "val": []}
    assert len(said["photos_per_class"]["train"]) == CLASSES
    assert [said["photos_per_class"]["train"][i] for i in (0, 3, 255, 846, 9)] == [1, 7, 7, 7, 0]
    assert [said["photos_per_class"]["val"][i] for i in (0, 7, 846)] == [0, 1, 1]
    # Nothing of the work is left behind.
    assert sorted(p.name for p in directory.parent.iterdir()) == ["1.0.0"]
    shards = [f"ade20k_full_847-train.array_record-{i:05}-of-00004" for i in range(4)]
    assert sorted(p.name for p in directory.iterdir()) == [
        *shards, "ade20k_full_847-val.array_record-00000-of-00001",
        "dataset_info.json", "features.json", "metadata.json", "tags.labels.txt",
    ]  # fmt: skip


def test_the_sources_of_training_read_it(root, tmp_path):
    prepare(Pairs, root, tmp_path)
    names = class_list("ade20k_full_847").ids
    label_set = Vocabulary(names, (), ()).label_set(())
    source = TfdsSource(tmp_path / "ade20k_full_847" / "1.0.0", "train", label_set, masks=True, tags=True)
    assert len(source) == 7
    got = source[6]
    np.testing.assert_array_equal(got["image"], np.asarray(Image.open(io.BytesIO(photo(6)))))
    np.testing.assert_array_equal(got["label"], np.where(mask(6) == 65535, -1, mask(6).astype(int)))
    assert got["tags"].tolist() == [3, 6, 255, 256, 846]


def test_processes_and_tfds_itself_write_the_same(root, tmp_path):
    (root / "train" / "p2.jpg").write_bytes(photo(2)[:-30])
    one = prepare(Pairs, root, tmp_path / "one")
    three = prepare(Pairs, root, tmp_path / "three", workers=3)
    assert digests(one) == digests(three)
    builder = Pairs(data_dir=tmp_path / "tfds", file_format="array_record")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=root))
    theirs = Path(builder.data_dir)
    assert messages(one) == messages(theirs)
    assert messages(one, "val") == messages(theirs, "val")
    assert metadata(one) == metadata(theirs)
    for name in ("features.json", "tags.labels.txt"):
        assert (one / name).read_bytes() == (theirs / name).read_bytes()
    infos = [tfds.builder_from_directory(str(d)).info for d in (one, theirs)]
    assert {s: i.num_bytes for s, i in infos[0].splits.items()} == {s: i.num_bytes for s, i in infos[1].splits.items()}


def test_unreadable_files_are_left_out_and_listed(root, tmp_path, capfd):
    (root / "train" / "p0.jpg").write_bytes(b"")
    (root / "train" / "p1.jpg").write_bytes(photo(1)[:-150])  # both photos of a shard
    png = io.BytesIO()
    Image.open(io.BytesIO(photo(3))).save(png, "PNG")
    (root / "train" / "p3.jpg").write_bytes(png.getvalue()[:-30])
    (root / "train" / "p5.png").unlink()
    directory = prepare(Pairs, root, tmp_path)
    assert [record["id"].decode() for record in parsed(directory)] == ["p2", "p4", "p6"]
    listed = metadata(directory)["unreadable"]
    assert [entry["file"] for entry in listed["train"]] == [
        "train/p0.jpg", "train/p1.jpg", "train/p3.jpg", "train/p5.png",
    ]  # fmt: skip
    assert listed["train"][0]["reason"] == "empty file"
    assert "No such file" in listed["train"][3]["reason"]
    assert metadata(directory)["photos_per_class"]["train"][:5] == [0, 0, 1, 3, 1]
    said, noise = capfd.readouterr()
    assert noise == ""  # of the picture libraries, which tell of every odd file
    assert "split train: 3 photos of 7 published" in said
    assert "4 unreadable files left out, listed in" in said
    assert "the first: train/p0.jpg: empty file" in said


def test_a_split_of_unreadable_files_only_is_refused(root, tmp_path):
    (root / "val" / "p7.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"no readable photo for the split 'val' \(1 unreadable, the first: val/p7"):
        prepare(Pairs, root, tmp_path / "data")
    shutil.rmtree(root / "val")
    with pytest.raises(UserError, match=r"download: pairs, but no photo for the split 'val': complete the download"):
        prepare(Pairs, root, tmp_path / "other")


def test_goes_on_where_it_stopped(root, tmp_path):
    whole = digests(prepare(Pairs, root, tmp_path / "whole"))
    (root / "fail").touch()
    with pytest.raises(UserError, match="p4 fails"):
        prepare(Pairs, root, tmp_path / "data")
    work = tmp_path / "data" / "ade20k_full_847" / "1.0.0.preparing"
    before = {p.name: p.stat().st_mtime_ns for p in work.glob("*-train.array_record-*-of-00004")}
    assert len(before) == 2
    first = next(work.glob("*-00000-of-00004"))
    first.write_bytes(first.read_bytes()[:1000])  # damaged since: written anew
    (root / "fail").unlink()
    directory = prepare(Pairs, root, tmp_path / "data")
    after = {name: (directory / name).stat().st_mtime_ns for name in before}
    assert [before[name] == after[name] for name in sorted(before)] == [False, True]
    assert digests(directory) == whole


def test_a_worker_that_dies_is_an_error_of_one_line(root, tmp_path):
    (root / "die").touch()
    with pytest.raises(UserError, match=r"a worker process died .* the same command goes on; .* fewer --workers"):
        prepare(Pairs, root, tmp_path / "data", workers=2)
    (root / "die").unlink()
    assert len(parsed(prepare(Pairs, root, tmp_path / "data"))) == 7


@pytest.mark.slow
def test_goes_on_after_kill_9(root, tmp_path):
    whole = digests(prepare(Pairs, root, tmp_path / "whole"))
    (root / "wait").touch()
    code = (
        "import test_prepare, pathlib, sys\n"
        "if __name__ == '__main__':\n"
        "    test_prepare.prepare(test_prepare.Pairs, *map(pathlib.Path, sys.argv[1:]), workers=2)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    run = subprocess.Popen(
        [sys.executable, script, root, tmp_path / "data"],
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{Path(__file__).parent}"},
    )
    work = tmp_path / "data" / "ade20k_full_847" / "1.0.0.preparing"
    others = [work / f"ade20k_full_847-train.array_record-0000{i}-of-00004.json" for i in (0, 3)]
    waiting = root / "waiting"
    try:
        wait_until(lambda: waiting.exists() and waiting.read_text() and all(o.exists() for o in others))
        with pytest.raises(UserError, match=r"1\.0\.0\.preparing is being written by another run"):
            prepare(Pairs, root, tmp_path / "data")
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    worker = Path("/proc") / waiting.read_text()
    wait_until(lambda: not worker.exists())  # no orphan keeps writing
    # The kill may fall between a shard and its summary; such a shard is written again.
    shards = (summary.with_suffix("") for summary in work.glob("*.array_record-*.json"))
    written = {shard.name: shard.stat().st_mtime_ns for shard in shards}
    (root / "wait").unlink()
    directory = prepare(Pairs, root, tmp_path / "data")
    assert len(written) in (3, 4)
    assert {name: (directory / name).stat().st_mtime_ns for name in written} == written
    assert digests(directory) == whole


def wait_until(condition):
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("did not happen within a minute")


def test_another_download_is_not_mixed_in(root, tmp_path):
    (root / "fail").touch()
    with pytest.raises(UserError, match="p4 fails"):
        prepare(Pairs, root, tmp_path / "data")
    write_pair(root, 8)
    with pytest.raises(UserError, match=r"begun from .*download \(pairs, 5 shards\) with other files than it has now"):
        prepare(Pairs, root, tmp_path / "data")
    moved = root.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"begun from .*download .* or delete .*1\.0\.0\.preparing"):
        prepare(Pairs, moved, tmp_path / "data")


def test_a_finished_data_set_is_left_alone(root, tmp_path, capsys):
    directory = prepare(Pairs, root, tmp_path)
    before = {p.name: p.stat().st_mtime_ns for p in directory.iterdir()}
    capsys.readouterr()
    assert prepare(Pairs, tmp_path / "gone", tmp_path) == directory
    assert capsys.readouterr().out == f"{directory} is prepared already\n"
    assert {p.name: p.stat().st_mtime_ns for p in directory.iterdir()} == before


def test_masks_that_do_not_fit_are_errors(root, tmp_path):
    Image.fromarray(mask(3)[1:]).save(root / "train" / "p3.png")
    with pytest.raises(UserError, match=r"photo train/p3\.jpg: its mask has 14x11 pixels, the picture 14x12"):
        prepare(Pairs, root, tmp_path / "data")
    wrong = mask(3)
    wrong[2, 5] = CLASSES
    Image.fromarray(wrong).save(root / "train" / "p3.png")
    with pytest.raises(UserError, match=r"p3\.jpg: value 847 of its mask at row 2, column 5 .* classes 0\.\.846"):
        prepare(Pairs, root, tmp_path / "data", workers=2)


def test_a_full_disk_is_an_error_of_one_line(root, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    (root / "train" / "p0.jpg").write_bytes(jpeg(noise, quality=95))
    Image.fromarray(np.zeros((700, 700), np.uint16)).save(root / "train" / "p0.png")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(UserError, match="cannot prepare .*00000-of-00004.incomplete: .*File too large") as caught:
            prepare(Pairs, root, tmp_path / "data")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert len(parsed(prepare(Pairs, root, tmp_path / "data"))) == 7
