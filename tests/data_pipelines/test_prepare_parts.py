"""A data set that several hosts prepare in parts is that of one host, byte by byte; photos are held one at a time."""

import gc
import json
import multiprocessing
import subprocess
import sys
import tarfile
import time
import weakref
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from data_pipelines.builders.download_builder import DownloadBuilder, Photo
from data_pipelines.builders.imagenet21k import ImageNet21k
from data_pipelines.builders.parts import Part, in_use
from data_pipelines.builders.preparation import prepare
from data_pipelines.builders.synset_photos import photos_in_archive, photos_in_folder
from larvseg_jax import cli
from larvseg_jax.vocabulary.class_lists import class_list
from tests.data_pipelines.mask_trees import jpeg, write

REPOSITORY = Path(__file__).resolve().parents[2]
SYNSETS = class_list("imagenet_21k").ids[100:118]  # four to a shard: five shards, the last of two
PHOTOS = {f"{wnid}/{wnid}_{i}.JPEG": jpeg(3, seed=3 * n + i) for n, wnid in enumerate(SYNSETS) for i in range(3)}
NAMES = [f"imagenet_21k-train.array_record-{i:05}-of-00005" for i in range(5)]


@pytest.fixture
def download(tmp_path):
    """18 synsets of three photos; one photo is broken, in the second shard."""
    root = write(tmp_path / "in", PHOTOS)
    (root / SYNSETS[5] / f"{SYNSETS[5]}_1.JPEG").write_bytes(b"")
    return root


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def command(download: Path, data_root: Path, *more: str) -> None:
    cli.run("prepare", ["imagenet_21k", f"--from={download}", f"--data_root={data_root}", "--workers=1", *more])


def refused(capsys, *arguments) -> str:
    """The one line of a command that ends with exit code 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        command(*arguments)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize("count", [1, 2, 3, 7])  # of seven parts two have no shard
def test_parts_make_the_data_set_of_one_host(count, download, tmp_path, capsys):
    whole = contents(prepare(ImageNet21k, download, tmp_path / "whole"))
    for number in range(count, 0, -1):
        command(download, tmp_path / "data", f"--part={number}/{count}")
        assert not (tmp_path / "data/imagenet_21k/1.0.0").exists()
    assert "all parts are written: the same command without --part" in capsys.readouterr().out
    command(download, tmp_path / "data")
    assert "5 of 5 shards are written already" in capsys.readouterr().out
    joined = tmp_path / "data/imagenet_21k/1.0.0"
    assert contents(joined) == whole
    assert whole.keys() == {*NAMES, "dataset_info.json", "features.json", "metadata.json", "tags.labels.txt"}
    assert [p.name for p in joined.parent.iterdir()] == ["1.0.0"]
    # Once more, without the code of the preparation: ids and order by hand.
    source = tfds.builder_from_directory(str(joined)).as_data_source(
        "train", decoders={"image": tfds.decode.SkipDecoding()}
    )
    stored = [(source[i]["id"].decode(), source[i]["image"]) for i in range(len(source))]
    broken = f"{SYNSETS[5]}/{SYNSETS[5]}_1.JPEG"
    assert stored == [(Path(name).stem, data) for name, data in sorted(PHOTOS.items()) if name != broken]
    lengths = json.loads(whole["dataset_info.json"])["splits"][0]["shardLengths"]
    assert lengths == ["12", "11", "12", "12", "6"]


def test_a_part_writes_its_shards_only_and_may_be_made_twice(download, tmp_path, capsys):
    command(download, tmp_path, "--part=2/3")
    work = tmp_path / "imagenet_21k/1.0.0.preparing"
    shards = sorted(work.glob("*.array_record-*-of-00005"))
    assert [shard.name for shard in shards] == [NAMES[1], NAMES[4]]
    said = capsys.readouterr().out
    assert "part 2/3 is written: 2 of 5 shards\n" in said
    assert "not written yet: parts 1/3, 3/3; after them, the same command without --part\n" in said
    times = [shard.stat().st_mtime_ns for shard in shards]
    shards[1].write_bytes(b"damaged")
    command(download, tmp_path, "--part=2/3")
    assert "1 of 2 shards are written already" in capsys.readouterr().out
    assert shards[0].stat().st_mtime_ns == times[0]
    assert shards[1].stat().st_size > 100


def test_missing_parts_are_named(download, tmp_path, capsys):
    whole = contents(prepare(ImageNet21k, download, tmp_path / "whole"))
    command(download, tmp_path, "--part=1/3")
    said = refused(capsys, download, tmp_path)
    work = tmp_path / "imagenet_21k/1.0.0.preparing"
    assert (
        f"{work} lacks parts 2/3, 3/3 (the first shard: {NAMES[1]}): run the same command with --part=2/3, --part"
        in said
    )
    command(download, tmp_path, "--part=3/3")
    assert f"lacks part 2/3 (the first shard: {NAMES[1]}): run the same command with --part=2/3, or delete" in refused(
        capsys, download, tmp_path
    )
    (work / "parts.json").unlink()  # the remedy: what is missing is written by one host
    command(download, tmp_path)
    assert "3 of 5 shards are written already" in capsys.readouterr().out
    assert contents(tmp_path / "imagenet_21k/1.0.0") == whole


def test_parts_of_another_number_are_not_mixed_in(download, tmp_path, capsys):
    command(download, tmp_path, "--part=1/3")
    parts = tmp_path / "imagenet_21k/1.0.0.preparing/parts.json"
    said = refused(capsys, download, tmp_path, "--part=1/2")
    assert "--part=1/2: " in said
    assert (
        f"was begun in 3 parts: give one of 3, or, when none of them is being written any more, delete {parts}" in said
    )
    parts.write_text("{}")
    assert f"{parts} does not say in how many parts" in refused(capsys, download, tmp_path, "--part=1/3")
    parts.unlink()
    command(download, tmp_path, "--part=1/2")
    assert "1 of 3 shards are written already" in capsys.readouterr().out  # the first, of the first, third and fifth


def test_a_summary_cut_short_is_written_anew(download, tmp_path):
    whole = contents(prepare(ImageNet21k, download, tmp_path / "whole"))
    work = prepare(ImageNet21k, download, tmp_path, part=Part(1, 1))
    for name, content in ((NAMES[1], b""), (NAMES[2], b"[]"), (NAMES[3], b"{}")):
        (work / f"{name}.json").write_bytes(content)
    prepare(ImageNet21k, download, tmp_path, part=Part(1, 1))
    assert contents(prepare(ImageNet21k, download, tmp_path)) == whole


def _hold(work: Path, part: Part | None, begun, end) -> None:
    with in_use(work, part):
        begun.set()
        end.wait(60)


@pytest.mark.parametrize(
    ("held", "wanted", "message"),
    [
        (Part(1, 2), "--part=1/2", "error: part 1/2 of "),
        (Part(1, 2), None, "error: "),
        (None, "--part=1/2", "error: "),
        (Part(1, 2), "--part=2/2", None),
    ],
    ids=["the same part", "the whole beside a part", "a part beside the whole", "another part"],
)
def test_who_may_write_beside_whom(held, wanted, message, download, tmp_path, capsys):
    work = tmp_path / "imagenet_21k/1.0.0.preparing"
    work.mkdir(parents=True)
    begun, end = (context := multiprocessing.get_context("spawn")).Event(), context.Event()
    other = context.Process(target=_hold, args=(work, held, begun, end))
    other.start()
    try:
        assert begun.wait(60)
        arguments = [wanted] if wanted else []
        if message is None:
            command(download, tmp_path, *arguments)
        else:
            said = refused(capsys, download, tmp_path, *arguments)
            assert said == f"{message}{work} is being written by another run: wait for it, or stop it\n"
    finally:
        end.set()
        other.join()


@pytest.mark.slow
def test_hosts_that_begin_together_and_one_that_is_killed(download, tmp_path, capsys):
    whole = contents(prepare(ImageNet21k, download, tmp_path / "whole"))
    work = tmp_path / "imagenet_21k/1.0.0.preparing"
    given = [sys.executable, "-m", "data_pipelines.prepare", "imagenet_21k", f"--from={download}"]
    given += [f"--data_root={tmp_path}", "--workers=1"]
    hosts = [subprocess.Popen([*given, f"--part={i}/3"], cwd=REPOSITORY, stdout=subprocess.PIPE) for i in (1, 2, 3)]
    while not list(work.glob("*.array_record-*")) and hosts[1].poll() is None:
        time.sleep(0.001)
    hosts[1].kill()  # at whatever it does
    assert [host.wait() for host in hosts[::2]] == [0, 0]
    hosts[1].wait()
    for host in hosts:
        host.communicate()
    command(download, tmp_path, "--part=2/3")
    command(download, tmp_path)
    assert contents(tmp_path / "imagenet_21k/1.0.0") == whole


@pytest.mark.parametrize("text", ["", "3", "0/3", "4/3", "1/0", "-1/3", "1/3/5", "one/3", "1/3 "])
def test_what_names_no_part_is_refused(text, download, tmp_path, capsys):
    said = refused(capsys, download, tmp_path, f"--part={text}")
    assert f"--part={text}: give which part of how many, such as 1/16 to 16/16" in said
    assert not (tmp_path / "imagenet_21k").exists()


def test_a_data_set_that_is_there_needs_no_part(download, tmp_path, capsys):
    final = prepare(ImageNet21k, download, tmp_path)
    before = contents(final)
    command(download, tmp_path, "--part=1/2")
    assert f"{final} is prepared already" in capsys.readouterr().out
    assert contents(final) == before


def test_a_host_that_comes_when_all_is_put_together_begins_nothing(download, tmp_path, monkeypatch):
    """It had begun to look through the download before."""
    layout = ImageNet21k.layout

    def slow(self, root):
        monkeypatch.setattr(ImageNet21k, "layout", layout)
        prepare(ImageNet21k, root, tmp_path)
        return layout(self, root)

    monkeypatch.setattr(ImageNet21k, "layout", slow)
    assert prepare(ImageNet21k, download, tmp_path, part=Part(1, 2)) == tmp_path / "imagenet_21k/1.0.0"
    assert [p.name for p in (tmp_path / "imagenet_21k").iterdir()] == ["1.0.0"]


# Memory


class Alive:
    """How many of the photos that were passed on exist at once, at most."""

    def __init__(self) -> None:
        self.photos: weakref.WeakSet[Photo] = weakref.WeakSet()
        self.most = self.seen = 0

    def add(self, photo: Photo) -> None:
        self.photos.add(photo)
        self.seen += 1
        self.most = max(self.most, len(self.photos))


def test_a_shard_is_written_photo_by_photo(download, tmp_path, monkeypatch):
    """Wherever between the reader and the file they would be held."""
    alive, photos = Alive(), ImageNet21k.photos

    def watched(self, piece):
        for photo in photos(self, piece):
            if isinstance(photo, Photo):
                alive.add(photo)
            yield photo

    gc.collect()
    monkeypatch.setattr(ImageNet21k, "photos", watched)
    prepare(ImageNet21k, download, tmp_path)
    assert alive.seen == len(PHOTOS)
    assert alive.most <= 2  # the one that is written, and the one that takes its place


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_photos_are_read_one_by_one(kind, tmp_path):
    root, wnid = write(tmp_path, {f"n00004475/n00004475_{i}.JPEG": jpeg(3) for i in range(20)}), "n00004475"
    with tarfile.open(tmp_path / f"{wnid}.tar", "w") as archive:
        for file in sorted((root / wnid).iterdir()):
            archive.add(file, file.name)
    photos = (
        photos_in_folder(root / wnid, 0, None) if kind == "folder" else photos_in_archive(root / f"{wnid}.tar", 0, None)
    )
    alive = Alive()
    for photo in photos:
        assert isinstance(photo, Photo)
        alive.add(photo)
    assert alive.seen == 20
    assert alive.most <= 2


def test_records_wait_in_no_list(download, tmp_path, monkeypatch):
    """A record is stored before the next photo is read: the writer asks for one after the other."""
    order: list[str] = []
    records = DownloadBuilder.records

    def watched(self, piece, tally):
        for record in records(self, piece, tally):
            order.append("read")
            yield record

    class Writer(tfds.core.ExampleWriter):
        def write(self, path, examples):
            return super().write(path, self.noted(examples))

        def noted(self, examples):
            for example in examples:
                order.append("write")
                yield example

    monkeypatch.setattr(DownloadBuilder, "records", watched)
    monkeypatch.setattr(tfds.core, "ExampleWriter", Writer)
    prepare(ImageNet21k, download, tmp_path)
    assert order == ["read", "write"] * (len(PHOTOS) - 1)
