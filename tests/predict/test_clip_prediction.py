"""Any CLIP's file segments the classes asked for, in whichever of the three kinds it comes; and says their vectors."""

import hashlib

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from larvseg_jax import Segmenter, cli
from larvseg_jax.errors import UserError
from larvseg_jax.trained import load_trained
from larvseg_jax.vocabulary.class_lists import class_list
from larvseg_jax.vocabulary.free_names import free_names
from tests.weights.clip_writing import write_archive, write_clip, write_hugging_face

COLOURS = ("red", "old")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    pixels = np.random.default_rng(0).integers(0, 255, (40, 52, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    (folder / "names.txt").write_text("red car\nriver, wide\n\n")
    write_clip(folder / "vit-quickgelu.safetensors")
    write_archive(folder / "ViT.pt")
    (folder / "hf").mkdir()
    write_hugging_face(folder / "hf")
    return folder


def run(command, *arguments, capsys):
    code = 0
    try:
        cli.run(command, list(map(str, arguments)))
    except SystemExit as left:
        code = left.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("name", ["vit-quickgelu.safetensors", "ViT.pt", "hf/model.safetensors"])
def test_one_command(place, tmp_path, capsys, name):
    photo, model, out = place / "photo.png", place / name, tmp_path / "out.png"
    code, text, error = run(
        "predict",
        photo,
        f"--model={model}",
        "--classes=red car, river",
        f"--out={out}",
        "--scale=128,32",
        capsys=capsys,
    )
    assert (code, error) == (0, "")
    assert "activation: that of the weights ('quick_gelu')" in text
    assert "red car" in text
    assert "river" in text
    assert out.is_file()


def test_the_classes_of_patches_are_those_of_the_nearest_prompts(place):
    """The archive holds the same numbers rounded to half precision."""
    classes = ["red car", "river", "dog"]
    found = []
    for name in ("vit-quickgelu.safetensors", "ViT.pt"):
        segmenter = Segmenter.load(place / name, classes=classes, scale=(52, 40), whole=True)
        assert segmenter.classes == tuple(classes)
        found.append(segmenter(place / "photo.png").labels)
    assert np.mean(found[0] == found[1]) > 0.95
    trained = segmenter.trained
    pixels = np.asarray(Image.open(place / "photo.png"), np.float32)
    normalised = (pixels - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]
    images = jnp.asarray(np.pad(normalised, ((0, 0), (0, 4), (0, 0)))[None], jnp.float32)
    patches = np.asarray(trained.method.embed(trained.params, images))[0]
    nearest = (patches @ np.asarray(trained.method.text_vectors(trained.params, tuple(classes))).T).argmax(-1)
    assert np.mean(found[1][4::8, 4::8] == nearest[:, :6]) > 0.8  # between their middles scores are interpolated


def bilinear(patches, size):
    """Patches -> pixels, middles on middles, held at the borders."""
    places = (np.arange(size) + 0.5) * patches / size - 0.5
    return np.stack([np.interp(places, np.arange(patches), one) for one in np.eye(patches)], axis=1)


def test_of_hundreds_of_prompts_the_best_are_found(place):
    """As NumPy finds them, with the scores of all classes at every pixel."""
    names = [f"{colour} {thing}" for colour in COLOURS for thing in class_list("ade20k_150").titles]
    segmenter = Segmenter.load(place / "vit-quickgelu.safetensors", classes=names, scale=(48, 32), whole=True)
    pixels = np.random.default_rng(1).integers(0, 255, (32, 48, 3), dtype=np.uint8)
    found = segmenter(pixels, top_k=3)
    trained = segmenter.trained
    images = (pixels[None] - np.array([123.675, 116.28, 103.53])) / [58.395, 57.12, 57.375]
    patches = np.asarray(trained.method.embed(trained.params, jnp.asarray(images, jnp.float32)), np.float64)[0]
    scores = 100 * patches @ np.asarray(trained.method.text_vectors(trained.params, segmenter.classes), np.float64).T
    rows, columns = (bilinear(*sizes) for sizes in ((4, 32), (6, 48)))
    scores = np.einsum("Hp,pqn,Wq->HWn", rows, scores, columns, optimize=True)
    ranked = np.sort(scores, -1)[..., ::-1]
    np.testing.assert_allclose(found.scores, ranked[..., :3], atol=2e-4)
    clear = ranked[..., 0] - ranked[..., 1] > 2e-4
    assert clear.mean() > 0.8
    np.testing.assert_array_equal(found.labels[clear], scores.argmax(-1)[clear])


@pytest.mark.parametrize("step", [None, 3])
def test_without_classes_it_asks_for_some(place, capsys, step):
    steps = [] if step is None else [f"--step={step}"]
    code, _, error = run(
        "predict", place / "photo.png", f"--model={place / 'ViT.pt'}", *steps, "--classes=a,b"[: 99 if steps else 0],
        capsys=capsys,
    )  # fmt: skip
    assert code == 2
    says = (
        "is one file: leave the step 3 out" if steps else "ViT.pt is a CLIP, which knows words and no list of classes"
    )
    assert says in error
    assert len(error.splitlines()) == 1


def test_names_lists_and_files(place, monkeypatch):
    monkeypatch.chdir(place)
    assert free_names(["red car, river", "red car"]) == ("red car", "river")
    assert free_names(["@names.txt,dog"]) == ("red car", "river, wide", "dog")
    assert free_names([str(place / "names.txt")]) == ("red car", "river, wide")
    assert len(free_names(["voc_20"])) == 20
    with pytest.raises(UserError, match="none.txt: the file cannot be read .No such file"):
        free_names(["@none.txt"])
    with pytest.raises(UserError, match="no class is named"):
        free_names([" , "])


def test_text_vectors_are_those_of_the_scorer(place, tmp_path, capsys):
    weights, out = place / "hf" / "model.safetensors", tmp_path / "v.npz"
    code, text, error = run(
        "text_vectors", f"@{place / 'names.txt'}", f"--weights={weights}", f"--out={out}", capsys=capsys
    )
    assert (code, error) == (0, "")
    assert "2 vectors of 12 numbers, 14 templates" in text
    with np.load(out, allow_pickle=False) as file:
        found = {name: file[name] for name in file.files}
    assert found["names"].tolist() == ["red car", "river, wide"]
    assert found["vectors"].dtype == np.float32
    assert found["templates"][0] == "a photo of a {}."
    assert str(found["weights"]) == hashlib.sha256(weights.read_bytes()).hexdigest()
    trained = load_trained(weights, classes=tuple(found["names"].tolist()))
    scorer = trained.scorer(trained.vocabulary.label_set())
    np.testing.assert_allclose(found["vectors"], scorer.vectors(trained.params, None).vectors, atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(found["vectors"], axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cat", "--out=v.npz"], "--weights is missing"),
        (["cat", "--weights=hf", "--out=v.npz"], "hf is no run and no checkpoint"),
        (["cat", "--weights=ViT.pt", "--out=v.txt"], "give a name that ends in .npz"),
        (["cat", "--weights=ViT.pt", "--out=v.npz", "--templates=all"], "'all' is no template: use clip"),
        (["--weights=ViT.pt", "--out=v.npz"], "no class is named"),
        (["cat", "--weights=photo.png", "--out=v.npz"], "photo.png is no model"),
    ],
)
def test_slips_are_told_at_once(place, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(place)
    code, _, error = run("text_vectors", *arguments, capsys=capsys)
    assert code == 2
    assert message in error
