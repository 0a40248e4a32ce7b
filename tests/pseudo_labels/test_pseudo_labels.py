"""larvseg pseudo_labels on coloured boxes: its labels once more by hand, its pieces, its list as a stream reads it."""

import json
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax

from data_pipelines.sources import SourceConfig, open_source
from data_pipelines.tagged_photos import TaggedSource
from larvseg_jax import cli
from larvseg_jax.evaluation.windows import Windows
from larvseg_jax.methods.cel.method import Cel
from larvseg_jax.methods.method import Proposes
from larvseg_jax.pseudo_labels import pieces
from larvseg_jax.pseudo_labels.labeller import Labeller
from larvseg_jax.vocabulary import Vocabulary
from tests import tiny
from tests.pseudo_labels.colours import COLOURS, experiment
from tests.weights.clip_writing import write_clip

WINDOWS = Windows((64, 24), 16, 12)  # several of a photo
PHOTOS, COVERED = tiny.MASKED, 3
SIDE = 8  # of crops


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run of "colours" on the tiny data, whose stream knows the masks of base classes alone."""
    root = tmp_path_factory.mktemp("pseudo")
    folder = tiny.write_data(root)
    covered = np.full((16, 16), 1, np.uint8)  # a photo whose pixels all have a base class
    Image.fromarray(covered).save(folder / "masks" / "p03.png")
    Image.fromarray(tiny.COLOURS[covered]).save(folder / "images" / "p03.png")
    config = experiment(root, root / "run", SIDE)
    config.evals.val.update(scale=WINDOWS.scale, window=WINDOWS.window, stride=WINDOWS.stride)
    tiny.save_untrained(config)
    return root


def labels(place, capsys, *more, out="tags.json"):
    """Runs the command; the list it wrote, and what it printed."""
    run = place / "run"
    capsys.readouterr()
    try:
        cli.run("pseudo_labels", [f"--run={run}", f"--clip={run}", f"--out={place / out}", *more])
    except SystemExit as left:
        return left.code, capsys.readouterr().err
    return json.loads((place / out).read_text()), capsys.readouterr().out


def scores_by_hand(pixels, names):
    """The same by OpenCV and NumPy: every window, every colour, its box, its mean colour, the softmax, the maximum."""
    best = np.zeros(len(names))
    text = np.stack([COLOURS[tiny.NAMES.index(name)] for name in names])
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    content = [min(side, WINDOWS.window) for side in WINDOWS.test_size(pixels.shape)]
    for window in WINDOWS.cut(pixels):
        for colour in COLOURS:
            near = 1.0 - ((window[::2, ::2] - colour) ** 2).sum(-1)
            mask = cv2.resize(near.astype(np.float32), (16, 16), interpolation=cv2.INTER_LINEAR) > 0
            rows, columns = np.nonzero(mask[: content[0], : content[1]])
            if not rows.size:
                continue
            box = np.ascontiguousarray(window[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1])
            mean = cv2.resize(box, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC).mean((0, 1))
            scores = softmax(10.0 * text @ (mean / np.linalg.norm(mean)))
            best = np.maximum(best, scores)
    return best


def pixels_of(place, i):
    return np.asarray(Image.open(place / "tiny" / "images" / f"p{i:02d}.png").convert("RGB"))


def true_classes(place, i):
    return {tiny.NAMES[v] for v in np.unique(np.asarray(Image.open(place / "tiny" / "masks" / f"p{i:02d}.png")))}


def test_labels_are_those_by_hand(place, capsys):
    found, printed = labels(place, capsys, "--threshold=0.8")
    names = tiny.NOVEL
    expected = {}
    with np.load(place / "tags_scores" / "part_00000.npz") as file:
        scores = file["scores"]
    for i in range(PHOTOS):
        best = scores_by_hand(pixels_of(place, i), names) if i != COVERED else np.zeros(2)
        np.testing.assert_allclose(scores[i], best, atol=1e-4)
        assert (np.abs(best - 0.8) > 1e-3).all()
        expected[f"p{i:02d}"] = [name for name, score in zip(names, best, strict=True) if score > 0.8]
    assert found == expected
    assert 0 < sum(map(len, found.values())) < 2 * PHOTOS
    # Precision and recall, counted from the files.
    for name in names:
        given, true = ({i for i in range(PHOTOS) if name in of(i)} for of in (
            lambda i: found[f"p{i:02d}"], lambda i: true_classes(place, i)))  # fmt: skip
        cells = next(line for line in printed.splitlines() if name in line).split()
        numbers = [cell for cell in cells if cell[0].isdigit()]
        both = len(given & true)
        assert numbers == [
            str(len(given)),
            f"{100 * both / len(given):.1f}",
            str(len(true)),
            f"{100 * both / len(true):.1f}",
        ]
    assert f"{PHOTOS} photos, 0 of them scored before" in printed


def test_a_stopped_command_goes_on_and_another_threshold_looks_at_nothing_again(place, capsys, monkeypatch):
    monkeypatch.setattr(pieces, "PHOTOS", 4)
    first, _ = labels(place, capsys, out="again.json")
    folder = place / "again_scores"
    assert [path.name for path in sorted(folder.glob("*.npz"))] == [f"part_{i:05d}.npz" for i in range(3)]
    kept = (folder / "part_00000.npz").read_bytes()
    (folder / "part_00001.npz").unlink()
    second, printed = labels(place, capsys, out="again.json")
    assert second == first
    assert "10 photos, 6 of them scored before" in printed
    monkeypatch.setattr(Labeller, "__call__", None)
    lower, _ = labels(place, capsys, "--threshold=0.5", out="again.json")
    assert (folder / "part_00000.npz").read_bytes() == kept
    assert sum(map(len, lower.values())) > sum(map(len, first.values()))
    with np.load(folder / "part_00000.npz") as file:
        highest = max(float(file["scores"][i, 1]) for i in range(4))
    strict, _ = labels(place, capsys, f"--threshold={highest!r}", out="again.json")
    assert not any(tiny.NOVEL[1] in strict[f"p{i:02d}"] for i in range(4))
    code, said = labels(place, capsys, "--fill=mean", out="again.json")
    assert code == 2
    assert "again_scores holds scores of something else (fill: 'mean', was 'none')" in said
    (folder / "part_00002.npz").write_bytes(kept[:50])
    assert "part_00002.npz is damaged" in labels(place, capsys, out="again.json")[1]


def test_a_stream_reads_the_list(place, capsys):
    found, _ = labels(place, capsys, "--limit=4", "--threshold=0.6", "--fill=mean", out="few.json")
    assert [*found] == ["p00", "p01", "p02", "p03"]
    names = Vocabulary(tiny.NAMES).label_set()
    source = SourceConfig(folder="tiny", split="train", tags_file="few.json")
    read = open_source(source, place, names, "masks")
    assert {read[i]["id"]: [tiny.NAMES[t] for t in read[i]["tags"]] for i in range(4)} == found


def test_a_folder_of_pictures_becomes_tagged_photos(place, tmp_path, capsys):
    shutil.copytree(place / "tiny" / "images", tmp_path / "photos" / "deep")
    out = tmp_path / "pseudo" / "tags.json"
    found, printed = labels(
        place, capsys, f"--images={tmp_path / 'photos'}", f"--out={out}", "--classes=red,grey", out=out
    )
    assert found
    assert all(photo.startswith("deep/p") and tags for photo, tags in found.items())
    assert "right %" not in printed  # there are no masks
    shutil.copy(out, tmp_path / "photos")
    source = TaggedSource(tmp_path / "photos", "train", Vocabulary(("red", "grey")).label_set())
    assert len(source) == len(found)


def test_cel_proposes():
    assert issubclass(Cel, Proposes)


@pytest.mark.slow
def test_a_file_of_clip_reads_the_crops(place, tmp_path, capsys):
    clip = write_clip(tmp_path / "clip-quickgelu.safetensors")
    more = ["--limit=3", "--classes=blue,grey,a cat", "--threshold=0.3334", "--templates={}"]
    found, _ = labels(place, capsys, f"--clip={clip}", *more, out="clip.json")
    assert [*found] == ["p00", "p01", "p02"]
    assert all(found.values())  # of three probabilities one is more than a third


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--fill=grey"], "--fill=grey: use one of none, mean"),
        (["--out=tags.txt"], "give a name that ends in .json"),
        (["--clip=nowhere"], "nowhere is no run and no checkpoint"),
        (["--stream=tags"], "--stream=tags: the run has masks"),
        (["--classes=blue"], "1 classes are asked for"),
        (["--images=tiny"], "--images=tiny does not exist"),
        (["--templates=all"], "'all' is no template"),
    ],
)
def test_slips(place, capsys, more, said):
    code, error = labels(place, capsys, *more)
    assert code == 2
    assert said in error
    assert len(error.splitlines()) == 1
