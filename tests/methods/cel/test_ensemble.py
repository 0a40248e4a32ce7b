"""CLIP's part in the scores of a trained CEL, once more by OpenCV and NumPy; the "CLIP" knows colours."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.special import expit, softmax

from larvseg_jax.config import from_config
from larvseg_jax.errors import UserError
from larvseg_jax.evaluate import evaluate_checkpoint
from larvseg_jax.predict.predictor import Predictor
from larvseg_jax.train import train
from larvseg_jax.trained import load_trained
from tests import tiny
from tests.methods.cel.tiny_cel import experiment, unit, write_data
from tests.pseudo_labels import colours

SIDE = 8  # of crops
COMPETING = ("blue", "background", "red", "grey")
SEEN = np.array([0, 1, 1, 0], bool)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Untrained runs of CEL and of the method that knows colours."""
    root = tmp_path_factory.mktemp("ensemble")
    write_data(root)
    tiny.save_untrained(experiment(root, root / "cel"))
    tiny.save_untrained(colours.experiment(root, root / "colours", SIDE))
    return root


def options(root, **ensemble):
    return {"name": "cel", "ensemble": dict(clip=str(root / "colours"), **ensemble)}


def loaded(root, **ensemble):
    """CEL with or without the other, and with features of masks that leave some queries without a region."""
    trained = load_trained(root / "cel", options=options(root, **ensemble) if ensemble else None)
    trained.params["pixel_decoder"]["mask_features"]["bias"] = jnp.linspace(-2.0, 2.0, 8)
    return trained


@pytest.fixture(scope="module")
def seen(root):
    """Windows, the last all of one colour, and what CEL itself says of them: probabilities and logits of masks."""
    trained = loaded(root)
    photo = np.asarray(Image.open(root / "tiny" / "images" / "p19.png").convert("RGB"))
    windows = np.stack([trained.windows.cut(photo)[0], np.full((16, 16, 3), 0.3, np.float32)])
    propose = jax.jit(lambda params, windows: trained.method.network.apply({"params": params}, windows))
    said = propose(trained.params, jnp.asarray(windows))
    vectors, masks = said.vectors, said.masks
    text = np.asarray(trained.memory)[[tiny.NAMES.index(name) for name in COMPETING]]
    return windows, softmax(np.asarray(vectors[-1]) @ unit(text).T / 0.01, -1), np.asarray(masks[-1])


def clip_by_hand(window, logits, fill):
    """What the mean colour of a proposal's crop says of the classes; None without a crop."""
    mask = cv2.resize(logits, window.shape[:2], interpolation=cv2.INTER_LINEAR) > 0
    rows, columns = np.nonzero(mask)
    if not rows.size:
        return None
    shown = np.where(mask[..., None], window, fill) if fill is not None else window
    box = np.ascontiguousarray(shown[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1], np.float32)
    mean = cv2.resize(box, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC).mean((0, 1))
    text = colours.COLOURS[[tiny.NAMES.index(name) for name in COMPETING]]
    return softmax(10.0 * unit(text) @ unit(mean))


@pytest.mark.parametrize(
    ("ensemble", "fill", "weight", "base"),
    [
        (dict(kind="simple", weight=0.7, seen="none"), np.zeros(3), 0.7, SEEN & False),  # zeros: the mean of batches
        (dict(kind="zegformer", fill="none"), None, 2 / 3, SEEN),
    ],
    ids=["simple", "zegformer"],
)
def test_scores_are_those_by_hand(root, seen, ensemble, fill, weight, base):
    trained = loaded(root, **ensemble)
    windows, own, masks = seen[0], seen[1].copy(), seen[2]
    scorer = trained.scorer(trained.vocabulary.label_set(COMPETING))
    found = jax.jit(scorer.scores)(trained.params, trained.memory, jnp.asarray(windows))
    share, without = np.where(base, weight, 1 - weight), 0
    for i, q in np.ndindex(masks.shape[:2]):
        clip = clip_by_hand(windows[i], masks[i, q], fill)
        without += clip is None
        clip = np.ones(4) if clip is None else clip
        if ensemble["kind"] == "zegformer":
            clip[base] = clip[base].mean()
        own[i, q] = own[i, q] ** share * clip ** (1 - share)
    expected = np.einsum("bqc,bqhw->bhwc", own, expit(masks))
    expected -= 0.1 * base * (ensemble["kind"] == "zegformer")
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-5)
    assert 0 < without < masks[:, :, 0, 0].size


def test_an_evaluation_takes_it_and_so_does_a_prediction(root):
    config = experiment(root, root / "cel")
    config.method.ensemble.update(options(root, kind="simple")["ensemble"])
    score = evaluate_checkpoint(root / "cel", config=config)["val"].scalars()["aAcc"]
    predictor = Predictor(load_trained(root / "cel", options=options(root, kind="simple")))
    right = []
    for i in range(tiny.MASKED + tiny.TAGGED, tiny.MASKED + tiny.TAGGED + tiny.VALIDATION):
        image, mask = (Image.open(root / "tiny" / of / f"p{i:02d}.png") for of in ("images", "masks"))
        right.append(predictor(np.asarray(image.convert("RGB")), top_k=1).labels[..., 0] == np.asarray(mask))
    assert score == pytest.approx(np.mean(right), abs=1e-9)
    with pytest.raises(UserError, match=r"method.ensemble is for evaluations.*set ensemble.kind to none"):
        train(from_config(config))


@pytest.mark.parametrize(
    ("ensemble", "said"),
    [
        (dict(kind="simple", clip=""), "give its file or run, method.ensemble.clip"),
        (dict(kind="simple", weight=1.5), "ensemble.weight is 1.5: give a number from 0 to 1"),
        (dict(kind="simple", templates="all"), "'all' is no template"),
        (dict(kind="both"), "method.ensemble.kind"),
        (dict(kind="simple", clip="nowhere"), "nowhere"),
        (dict(kind="simple", clip="cel"), "cel does not read text: give a model of CLIP or ViL-Seg"),
    ],
)
def test_slips(root, ensemble, said, monkeypatch):
    monkeypatch.chdir(root)
    with pytest.raises(UserError, match=said) as caught:
        load_trained(root / "cel", options={"name": "cel", "ensemble": dict(clip="colours") | ensemble})
    assert len(str(caught.value).splitlines()) == 1
