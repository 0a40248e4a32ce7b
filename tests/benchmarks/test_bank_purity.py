"""The purity of what would be written into the bank, against loops over patches and pixels."""

import json
import sys

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import bank_purity
from benchmarks.attention_on_objects import Opened
from benchmarks.bank_purity import BESIDE, Measured, Written, add, means, patch_counts, tagged_photos, tagged_view
from larvseg_jax import assemble
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.errors import UserError
from larvseg_jax.features.features import make_features
from larvseg_jax.methods.larvseg.network import Network
from larvseg_jax.report.attention import OnPhoto
from tests import tiny


def opened(config, params=None):
    """A run of fresh weights that was never saved."""
    run, mesh = from_config(config), make_mesh(1, 1, jax.devices()[:1])
    method = assemble.make_method(run, mesh)
    fresh, memory = method.init(jax.random.key(3))
    evaluator = next(iter(assemble.make_evaluators(run, mesh, method).values()))
    return Opened(run, mesh, method, params or fresh, memory, evaluator)


def tiny_config(tmp_path, **tags):
    config = tiny.get_config()
    config.data_root = str(tiny.write_data(tmp_path / "data").parent)
    config.streams.tags.update(tags)
    return config


def in_loops(made, name):
    """(purity, chance, best) of a class: patches chosen by sorting, pixels counted one by one."""
    view, label_set = tagged_view(made)
    model, k, patch = made.method.model, made.method.config.ca_classifier.foreground_topk, 4
    rows = jnp.asarray(label_set.rows)
    table = model.apply({"params": made.params}, rows, jnp.ones(len(rows)), method=Network.classes)
    vector = np.asarray(table.vectors, np.float64)[label_set.names.index(name)]
    column = made.evaluator.label_set.names.index(name)
    sums, photos = np.zeros((3, 2)), 0
    for photo in tagged_photos(made, view, label_set):
        if label_set.names.index(name) not in photo.tags:
            continue
        photos += 1
        features = np.asarray(made.method.embed(made.params, jnp.asarray(photo.image[None])), np.float64)[0]
        side = len(features)
        found = []
        for y in range(side):
            for x in range(side):
                own = [
                    photo.label[v, u]
                    for v in range(len(photo.label))
                    for u in range(len(photo.label))
                    if (v * 2 // patch, u * 2 // patch) == (y, x)  # the loss grid has every second pixel
                ]
                labelled = [value for value in own if value != -1]
                found.append((float(features[y, x] @ vector), sum(v == column for v in labelled), len(labelled)))
        by_score = sorted(found, key=lambda f: -f[0])
        by_share = sorted(found, key=lambda f: -f[1] / max(f[2], 1))
        for total, some in zip(sums, (by_score[:k], found, by_share[:k]), strict=True):
            total += sum(f[1] for f in some), sum(f[2] for f in some)
    return photos, [on / n for on, n in sums]


@pytest.mark.parametrize("tags_from", ["image", "crop"])
def test_purity_is_that_of_loops_over_patches_and_pixels(tmp_path, tags_from):
    made = opened(tiny_config(tmp_path, tags_from=tags_from))
    written = bank_purity.what_is_written(made)
    assert written
    assert set(written) <= set(tiny.NOVEL)  # the bank of base classes is not looked at
    for name, of in written.items():
        photos, shares = in_loops(made, name)
        assert of.photos == photos
        np.testing.assert_allclose(of.shares, shares, rtol=1e-12)
        assert of.shares[0] <= of.shares[2]
        assert of.shares[1] <= of.shares[2]


def test_tags_are_those_that_the_stream_would_give(tmp_path):
    made = opened(tiny_config(tmp_path))
    view, label_set = tagged_view(made)
    photos = [photo.tags[photo.tags >= 0] for photo in tagged_photos(made, view, label_set)]
    names = [{label_set.names[tag] for tag in tags} for tags in photos]
    splits = json.loads((tmp_path / "data/tiny/splits.json").read_text())
    shown = [[tiny.NAMES[v] for v in splits["image_labels"][stem]] for stem in splits["val"]]
    assert names == [{"background", *some} for some in shown if set(some) & set(tiny.NOVEL)]
    assert all(label_set.names[tags[0]] in tiny.NOVEL for tags in photos)
    # A stream that knows one novel class gives no other; and none of the photos without it.
    made = opened(tiny_config(tmp_path / "one", classes=("background", "red", "blue"), always_tags=()))
    of_blue = list(tagged_photos(made, *tagged_view(made)))
    assert len(of_blue) == sum("blue" in some for some in shown)
    assert all(photo.tags[0] == 2 for photo in of_blue)


def test_what_lies_beside_a_photo_is_not_the_class(tmp_path):
    made = opened(tiny_config(tmp_path, scale=(8, 8), ratio_range=(1.0, 1.0)))  # 8 pixels of 16 at most
    photo = next(tagged_photos(made, *tagged_view(made)))
    beside = np.all(photo.image == 0, axis=-1)[::2, ::2]
    np.testing.assert_array_equal(photo.label == BESIDE, beside)
    assert beside.sum() >= 48


def test_patches_count_their_own_pixels():
    label = np.array([[1, 0, 1], [1, -1, 0], [1, 1, BESIDE]])  # every second pixel of 6, patches of 4 pixels
    on, counted = patch_counts(label, 1, 2, 4)
    np.testing.assert_array_equal(on, [2, 1, 2, 0])
    np.testing.assert_array_equal(counted, [3, 2, 2, 1])


def test_sums_over_photos_and_their_shares():
    written = Written()
    add(written, np.array([0, 3]), np.array([4, 0, 2, 1]), np.array([4, 4, 4, 2]))
    assert written.shares == (5 / 6, 7 / 14, 6 / 8)
    add(written, np.array([1, 2]), np.array([0, 0, 0, 4]), np.array([4, 0, 0, 4]))
    assert written.photos == 2
    purity, chance, best = written.shares
    assert (purity, chance) == (5 / 6, 11 / 22)
    assert best == 10 / 16  # of the second photo patch 3, then the first of those that show nothing
    assert np.isnan(Written().shares[0])


def test_the_means_leave_out_what_has_no_value():
    classes = {
        "blue": Measured(3, 0.5, 0.2, 1.0, OnPhoto(0.8, 0.4, 1.0, 0.7, 0.2), 0.1),
        "grey": Measured(1, float("nan"), 0.4, 0.6, None, float("nan")),
    }
    mean = means(classes)
    assert mean.photos == 4
    assert mean[1:4] == pytest.approx((0.5, 0.3, 0.8))
    assert mean.looked == OnPhoto(0.8, 0.4, 1.0, 0.7, 0.2)
    assert mean.iou == 0.1


def test_refused_in_one_line(tmp_path):
    config = tiny_config(tmp_path, lambda_aux=0.0)  # with attention training itself refuses
    config.method.ca_classifier.foreground_topk = 17
    with pytest.raises(UserError, match="foreground_topk is 17, and a crop has 16 patches"):
        bank_purity.what_is_written(opened(config))
    config = tiny_config(tmp_path / "masks")
    del config.streams["tags"]
    with pytest.raises(UserError, match="no tagged stream"):
        bank_purity.what_is_written(opened(config))


def run_main(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["bank_purity", *map(str, arguments)])
    bank_purity.main()


@pytest.mark.slow
def test_every_checkpoint_of_a_run_on_cached_features(tmp_path, monkeypatch, capsys, one_device):
    config = tiny_config(tmp_path)
    config.optimizer.frozen = "^backbone/"
    config.workdir, config.checkpoint.keep_last = str(tmp_path / "run"), 9
    make_features(from_config(config), tmp_path / "features", views=1)
    config.features = str(tmp_path / "features")
    tiny.save_untrained(config, steps=(4, 8))
    run_main(monkeypatch, f"--run={tmp_path / 'run'}")
    said = capsys.readouterr().out
    picture = cv2.imread(str(tmp_path / "run/bank_purity.png"))
    assert picture.shape[1] > 2 * picture.shape[0]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.splitlines() if line.startswith("│")]
    bank, attention = ([row for row in rows if len(row) == columns] for columns in (7, 6))
    for table in bank, attention:
        assert [row[0] for row in table if row[1] == "mean"] == ["4", "8"]
    assert all(0 < float(row[3]) <= float(row[5]) <= 100 for row in bank)
    assert all(0 < float(cell) < 1 for row in attention for cell in row[2:4])
    # The same crops at every step: chance and best stay, what is chosen need not.
    assert len({tuple(row[4:6]) for row in bank if row[1] == "mean"}) == 1


@pytest.mark.slow
def test_a_run_without_attention_has_a_purity_too(tmp_path, monkeypatch, capsys, one_device):
    config = tiny_config(tmp_path, lambda_aux=0.0)
    config.workdir = str(tmp_path / "run")
    tiny.save_untrained(config, steps=(3,))
    run_main(monkeypatch, f"--run={tmp_path / 'run'}", "--step=3", f"--out={tmp_path / 'here.png'}")
    assert (tmp_path / "here.png").is_file()
    bank, attention = (line for line in capsys.readouterr().out.splitlines() if " mean " in line)
    assert (bank.count("–"), attention.count("–")) == (0, 4)
    with pytest.raises(SystemExit):
        run_main(monkeypatch, f"--run={tmp_path / 'run'}", "--step=some")
    assert "--step=some is no step" in capsys.readouterr().err
