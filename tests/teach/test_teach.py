"""Classes taught without training: from pixels or tags to a vector, and from a vector to a model that knows it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from larvseg_jax import Segmenter
from larvseg_jax.config import from_config
from larvseg_jax.errors import UserError
from larvseg_jax.export import export_learnt
from larvseg_jax.teach.join import with_class, with_name, without_class
from larvseg_jax.teach.lesson import class_vectors, of_tagged
from larvseg_jax.teach.patches import PatchReader, PhotoPatches
from larvseg_jax.teach.request import at_points, names_of, pixels_shown, read_mask
from larvseg_jax.teach.vectors import of_pixels, of_tags, of_things
from larvseg_jax.trained import load_trained
from tests.predict.models import write_model
from tests.weights.learnt_runs import config_of, random_parameters, write_backbone, write_run

D = 12


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def photo_of(features):
    """A photo whose pixels are its patches."""
    h, w, _ = features.shape
    return PhotoPatches(features.astype(np.float32), np.eye(h, dtype=np.float32), np.eye(w, dtype=np.float32))


def scene(rng, ground, thing, box):
    """Patches of a ground in which a thing stands, as unit vectors with a little noise."""
    features = np.tile(ground, (8, 8, 1)) + 0.1 * rng.normal(size=(8, 8, D))
    features[box] = thing + 0.1 * rng.normal(size=(*features[box].shape[:2], D))
    return photo_of(features / np.linalg.norm(features, axis=-1, keepdims=True))


def test_the_vector_of_clicked_pixels_scores_the_thing_above_its_ground(rng):
    thing, grounds = 2 * np.eye(D)[0], [2 * np.eye(D)[i] for i in (3, 4)]
    boxes = [np.s_[1:4, 1:4], np.s_[4:8, 2:7]]
    photos = [scene(rng, ground, thing, box) for ground, box in zip(grounds, boxes, strict=True)]
    clicks = [np.zeros((8, 8), bool) for _ in photos]
    clicks[0][2, 2] = clicks[1][5, 5] = True
    vector = of_pixels(photos, clicks)
    assert abs(np.linalg.norm(vector) - 1) < 1e-6
    for photo, box in zip(photos, boxes, strict=True):
        inside = np.zeros((8, 8), bool)
        inside[box] = True
        scores = photo.scores(vector)
        assert scores[inside].min() > scores[~inside].max()


def test_pixels_weigh_patches_by_bilinear_upsampling(rng):
    features = rng.normal(size=(2, 2, D)).astype(np.float32)
    rows = np.array([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]], np.float32)
    photo = PhotoPatches(features, rows, rows)
    pixels = (rng.random((4, 4)) < 0.5).astype(np.float32)
    pixels[0, 0] = 1
    upsampled = np.einsum("yp,xq,pqd->yxd", rows, rows, features)
    np.testing.assert_allclose(photo.mean(pixels), upsampled[pixels > 0].mean(0), rtol=1e-5)


def test_the_vector_of_pixels_is_less_what_all_pixels_share(rng):
    """Two photos of which each pixel is a patch: the mean of their means, less three quarters of that of everything."""
    photos = [photo_of(rng.normal(size=(4, 4, D))) for _ in range(2)]
    masks = [rng.random((4, 4)) < share for share in (0.3, 0.8)]
    chosen, all_of = ([], [])
    for photo, mask in zip(photos, masks, strict=True):
        features = [photo.features[y, x] for y in range(4) for x in range(4)]
        chosen.append(sum(f for f, m in zip(features, mask.flat, strict=True) if m) / mask.sum())
        all_of.append(sum(features) / 16)
    expected = (chosen[0] + chosen[1]) / 2 - 0.75 * (all_of[0] + all_of[1]) / 2
    np.testing.assert_allclose(of_pixels(photos, masks), expected / np.linalg.norm(expected), atol=1e-5)


def test_tags_alone_find_what_the_photos_share(rng):
    thing = 2 * np.eye(D)[0]
    boxes = [np.s_[1:4, 1:4], np.s_[4:8, 2:7], np.s_[0:3, 5:8], np.s_[5:8, 0:4]]
    photos = [scene(rng, 2 * np.eye(D)[3 + i], thing, box) for i, box in enumerate(boxes)]
    vector = of_tags(photos, topk=6)
    for photo, box in zip(photos, boxes, strict=True):
        inside = np.zeros((8, 8), bool)
        inside[box] = True
        scores = photo.scores(vector)
        assert scores[inside].min() > scores[~inside].max()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: of_tags(p[:1]), "give two, or points or a mask"),
        (lambda p: of_tags(p, topk=100), "fewer than the 100"),
        (lambda p: of_pixels(p, [np.ones((8, 8), bool), np.zeros((8, 8), bool)]), "photo 2 of 2 has no pixel"),
        (lambda p: of_pixels([photo_of(np.zeros((4, 4, D)))], [np.ones((4, 4), bool)]), "nothing tells the pixels"),
    ],
)
def test_what_cannot_be_taught_is_said(rng, call, message):
    photos = [scene(rng, np.eye(D)[3], np.eye(D)[0], np.s_[1:4, 1:4]) for _ in range(2)]
    with pytest.raises(UserError, match=message):
        call(photos)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return load_trained(write_model(Path(tmp_path_factory.mktemp("model")) / "m.safetensors", ("cat", "dog", "sofa")))


def test_a_photo_has_unit_features_and_its_own_size(trained, rng):
    photo = PatchReader(trained)(rng.integers(0, 256, (40, 90, 3), dtype=np.uint8))
    np.testing.assert_allclose(np.linalg.norm(photo.features, axis=-1), 1, rtol=1e-5)
    assert (len(photo.rows), len(photo.columns)) == (40, 90)


def test_a_taught_class_joins_the_vocabulary_and_leaves_it(trained, rng):
    vector = rng.normal(size=16).astype(np.float32)
    grown = with_class(trained, "mug", vector)
    assert grown.vocabulary.classes == ("cat", "dog", "sofa", "mug")
    assert grown.vocabulary.groups(["mug", "cat"]) == ("novel", "base")
    assert trained.vocabulary.classes == ("cat", "dog", "sofa")
    vectors = np.asarray(grown.method.scorer(grown.vocabulary.label_set()).vectors(grown.params, None).vectors)
    wanted = vector / np.linalg.norm(vector)
    assert vectors.shape == (4, 16)
    assert np.argmax(vectors @ wanted) == 3
    left = without_class(grown, "dog")
    assert left.vocabulary.classes == ("cat", "sofa", "mug")
    np.testing.assert_array_equal(
        left.params["head"]["class_embeddings"], np.asarray(grown.params["head"]["class_embeddings"])[[0, 2, 3]]
    )
    for name, message in (("cat", "knows 'cat' already"), (" ", "no name")):
        with pytest.raises(UserError, match=message):
            with_class(trained, name, vector)


def test_a_class_is_renamed_and_its_aliases_go_with_it(tmp_path):
    file = write_model(tmp_path / "m.safetensors", ("cat", "dog", "sofa"), ("dog",), "sofa", [["puppy", "dog"]])
    trained = load_trained(file)
    renamed = with_name(with_name(trained, "dog", "hound"), "sofa", "rest").vocabulary
    assert (renamed.classes, renamed.novel, renamed.background) == (("cat", "hound", "rest"), ("hound",), "rest")
    assert renamed.aliases == (("puppy", "hound"),)
    for old, new, message in (
        ("mug", "x", "'mug' is not in"),
        ("cat", "puppy", "knows 'puppy'"),
        ("cat", "", "no name"),
    ):
        with pytest.raises(UserError, match=message):
            with_name(trained, old, new)


@pytest.mark.parametrize("kind", ["array", "truths", "pillow", "path"])
def test_a_mask_is_read_however_it_is_given(tmp_path, kind):
    ids = np.zeros((4, 6), np.uint8)
    ids[1:3, 2:5] = 7
    Image.fromarray(ids).save(tmp_path / "m.png")
    given = {
        "array": ids.astype(np.int64),
        "truths": ids > 0,
        "pillow": Image.fromarray(ids),
        "path": tmp_path / "m.png",
    }
    np.testing.assert_array_equal(read_mask(given[kind], 4, 6, "a.jpg"), ids == 7)


def test_a_point_is_the_pixel_it_lies_in():
    found = at_points([(0, 0), (5.9, 3.2)], 4, 6, "a.jpg")
    assert np.argwhere(found).tolist() == [[0, 0], [3, 5]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"masks": [np.ones((5, 6))]}, "1 masks for 2 photos"),
        ({"masks": "a.png"}, "masks cannot be a str: give a list"),
        ({"points": [[(1, 1)], [(1, 1)], []]}, "3 lists of points for 2 photos"),
        ({"points": [[(1, 1)], [(9, 1)]]}, r"photo 2 of 2 has 6 x 5 pixels, and the point \(9, 1\) is not in it"),
        ({"points": [[(1, 1)], [(1, 5)]]}, r"photo 2 of 2 has 6 x 5 pixels, and the point \(1, 5\) is not in it"),
        ({"points": [[(1, 1)], [(float("nan"), 1)]]}, r"the point \(nan, 1\) is not in it"),
        ({"points": [(1, 1), (2, 2)]}, r"photo 1 of 2: 1 is no point: give a list of \(x, y\) for each photo"),
        ({"points": [3, 4]}, "photo 1 of 2: 3 is no list of points"),
        ({"points": [[(1, 1)], []]}, "photo 2 of 2: no pixel of the class is marked"),
        ({"masks": [np.ones((5, 6)), np.zeros((5, 6))]}, "photo 2 of 2: no pixel of the class is marked"),
        (
            {"masks": [np.ones((5, 6)), np.ones((6, 5))]},
            "photo 2 of 2 has 6 x 5 pixels, its mask 5 x 6: give a mask of",
        ),
        ({"masks": [np.ones((5, 6, 3)), np.ones((5, 6))]}, r"photo 1 of 2: its mask has shape \(5, 6, 3\)"),
        ({"masks": ["nowhere.png", "nowhere.png"]}, "photo 1 of 2: there is no mask nowhere.png"),
        ({"masks": [3, 3]}, "photo 1 of 2: a mask cannot be a int"),
        ({"masks": [np.ones((5, 6))] * 2, "points": [[(1, 1)]] * 2}, "leave one of the two out"),
        ({"name": "dog", "points": [[(1, 1)]] * 2}, "knows 'dog' already"),
        ({"photos": []}, "there is no photo"),
        ({"photos": "a.jpg"}, "photos cannot be a str: give a list"),
        ({"photos": [np.zeros((5, 6, 3), np.uint8)]}, "give two, or points or a mask"),
        ({"photos": ["nowhere.jpg"], "points": [[(1, 1)]]}, "there is no picture nowhere.jpg"),
    ],
)
def test_a_lesson_that_does_not_fit_is_refused_and_changes_nothing(tmp_path, given, message):
    model = Segmenter.load(write_model(tmp_path / "m.safetensors", ("cat", "dog", "sofa")))
    given = {"name": "mug", "photos": [np.zeros((5, 6, 3), np.uint8)] * 2, **given}
    with pytest.raises(UserError, match=message):
        model.teach(**given)
    assert model.classes == ("cat", "dog", "sofa")


def test_masks_and_points_are_those_of_a_photo_as_it_is_shown(tmp_path, rng):
    """A photo whose EXIF tag says that it lies on its side: the file has 40 x 32 pixels, what is shown 32 x 40."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rng.integers(0, 255, (32, 40, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    model = Segmenter.load(write_model(tmp_path / "m.safetensors", ("cat", "dog", "sofa")))
    model.teach("mug", [tmp_path / "a.jpg"], points=[[(31, 39)]])
    mask = np.zeros((32, 40), np.uint8)
    with pytest.raises(UserError, match=r"photo 1 of 1 \(.*a.jpg\) has 32 x 40 pixels, its mask 40 x 32"):
        model.teach("cup", [tmp_path / "a.jpg"], masks=[mask])
    with pytest.raises(UserError, match=r"the point \(39, 31\) is not in it"):
        model.teach("cup", [tmp_path / "a.jpg"], points=[[(39, 31)]])


def test_a_taught_class_is_taught_anew_once_it_is_removed(tmp_path, rng):
    photo = rng.integers(0, 256, (32, 64, 3), np.uint8)
    model = Segmenter.load(write_model(tmp_path / "m.safetensors", ("cat", "dog", "sofa")))
    model.teach("mug", [photo], points=[[(3, 3)]])
    with pytest.raises(UserError, match="remove that class first"):
        model.teach("mug", [photo], points=[[(3, 3)]])
    model.remove("mug")
    model.teach("mug", [photo], points=[[(60, 3)]])
    assert model.classes == ("cat", "dog", "sofa", "mug")


def test_a_model_of_learnt_weights_and_pretrained_ones_is_saved_whole(tmp_path, rng):
    """What `export --learnt` left to the pretrained file is in the saved one."""
    run = from_config(config_of(tmp_path, tmp_path / "vit.npz"))
    parameters = random_parameters(run, 0)
    write_backbone(tmp_path / "vit.npz", parameters)
    folder = write_run(config_of(tmp_path, tmp_path / "vit.npz"), parameters)
    export_learnt(folder, tmp_path / "head.safetensors")
    model = Segmenter.load(tmp_path / "head.safetensors", pretrained=tmp_path / "vit.npz")
    photo = rng.integers(0, 256, (32, 64, 3), np.uint8)
    model.teach("mug", [photo], points=[[(3, 3)]])
    model.save(tmp_path / "whole.safetensors")
    again = Segmenter.load(tmp_path / "whole.safetensors")
    assert (again.classes, again.base, again.novel) == (model.classes, model.base, model.novel)
    assert again.novel[-1] == "mug"
    np.testing.assert_array_equal(again(photo).labels, model(photo).labels)
    np.testing.assert_allclose(again(photo).scores, model(photo).scores, rtol=1e-5)


def test_a_segmenter_is_taught_saved_and_read_back(tmp_path, rng):
    """The new class wins where its photo was clicked, and a file that was saved knows and says the same."""
    file = write_model(tmp_path / "m.safetensors", ("cat", "dog", "sofa"), ("dog",), "sofa", [["puppy", "dog"]])
    photo = np.concatenate([np.full((32, 32, 3), 20, np.uint8), rng.integers(0, 256, (32, 32, 3), np.uint8)], 1)
    model, untaught = Segmenter.load(file), Segmenter.load(file)
    model.teach("mug", [photo], points=[[(10, 10), (12, 20)]])
    assert (model.classes, model.novel) == (("cat", "dog", "sofa", "mug"), ("dog", "mug"))
    result = model(photo)
    assert result.names[result.labels[10, 10]] == "mug"
    model.rename("mug", "my mug")
    model.remove("dog")
    assert model.classes == ("cat", "sofa", "my mug")
    model.save(tmp_path / "taught.safetensors")
    again = Segmenter.load(tmp_path / "taught.safetensors")
    assert (again.classes, again.base, again.novel) == (model.classes, ("cat",), ("my mug",))
    np.testing.assert_array_equal(again(photo).labels, model(photo).labels)
    model.remove("my mug")
    names = ["cat", "sofa"]
    np.testing.assert_array_equal(model(photo, names).labels, untaught(photo, names).labels)
    with pytest.raises(UserError, match="ends in .safetensors"):
        model.save(tmp_path / "model")


def test_tagged_photos_teach_what_is_not_their_background(trained, rng):
    """The model knows a thing and the grounds: what it takes for none of the grounds is the new class."""
    new, ground = rng.normal(size=(2, D))
    photos = [scene(rng, 2 * ground, 2 * new, box) for box in (np.s_[1:4, 1:4], np.s_[4:8, 2:7])]
    things = [photo.features @ ground < photo.features @ new for photo in photos]
    vector = of_things(photos, things)
    means = [photo.features[mask].mean(0) for photo, mask in zip(photos, things, strict=True)]
    expected = np.mean(means, 0) - 0.75 * np.mean([photo.features.mean((0, 1)) for photo in photos], 0)
    np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-5)
    nothing = [np.zeros((8, 8), bool)] * 2
    assert of_things(photos, nothing) is None
    one = of_things(photos, [nothing[0], things[1]])  # a photo that shows nothing teaches nothing
    assert one @ means[1] > one @ photos[1].features[~things[1]].mean(0)


def test_whose_model_has_a_background_is_taught_by_it(tmp_path, rng):
    file = write_model(tmp_path / "m.safetensors", ("cat", "ground", "sofa"), background="ground")
    trained = load_trained(file)
    learnt = class_vectors(trained)
    away = rng.normal(size=16) - learnt.mean(0)
    thing = learnt[0] + 0.2 * away / np.linalg.norm(away)  # like a cat, rather than ground
    features = np.tile(learnt[1], (8, 8, 1))
    features[2:5, 2:6] = thing / np.linalg.norm(thing)
    photo = photo_of(features)
    expected = features[2, 2] - 0.75 * features.mean((0, 1))
    np.testing.assert_allclose(of_tagged(trained, [photo]), expected / np.linalg.norm(expected), atol=1e-5)
    with pytest.raises(UserError, match="give two, or points or a mask"):  # all of it is ground
        of_tagged(trained, [photo_of(np.tile(learnt[1], (8, 8, 1)))])


def test_photos_may_have_different_sizes():
    photos = [np.zeros((4, 6, 3), np.uint8), np.zeros((5, 3, 3), np.uint8)]
    masks = [np.ones((4, 6)), np.ones((5, 3))]
    sizes = [photo.shape[:2] for photo in photos]
    names = names_of(photos)
    assert [found.shape for found in pixels_shown(names, sizes, masks=masks)] == [(4, 6), (5, 3)]
    points = [[(5, 3)], [(2, 4)]]  # each is in its own photo alone
    assert [np.argwhere(found).tolist() for found in pixels_shown(names, sizes, points)] == [[[3, 5]], [[4, 2]]]
