"""report.html as a reader's browser would take it apart."""

import base64
import html.parser
import io
import re

import numpy as np
import pytest
from PIL import Image

from larvseg_jax.evaluation.metrics import SegmentationCounts
from larvseg_jax.report import cards, colours, curves, report
from larvseg_jax.report.metric_log import MetricLog, read_history
from larvseg_jax.vocabulary import Vocabulary

NAMES = ("background", "cat", "<dog>", "cow", "unicorn")
VOCABULARY = Vocabulary(NAMES, base=("cat", "<dog>"), novel=("cow", "unicorn"), background="background")


class Page(html.parser.HTMLParser):
    """Tags, picture sources and the text of each table row."""

    def __init__(self, text):
        super().__init__()
        self.open, self.pictures, self.captions, self.rows = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "br", "link", "input"):
            self.open.append(tag)
        if tag == "img":
            self.pictures.append(dict(attrs)["src"])
        if tag == "tr":
            self.rows.append([])
        if tag == "figcaption":
            self.captions.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and "td" in self.open:
            self.rows[-1].append(data.strip())
        if self.open and self.open[-1] == "figcaption":
            self.captions[-1] += data


@pytest.fixture(scope="module")
def summary():
    hit, predicted, labelled = [80, 6, 0, 3, 0], [90, 8, 5, 4, 0], [95, 10, 0, 8, 0]
    counts = SegmentationCounts(*(np.array(v, np.int64) for v in (hit, predicted, labelled)))
    return counts.summary(NAMES, VOCABULARY)


@pytest.fixture(scope="module")
def item():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    truth = np.zeros((40, 60), np.int32)
    truth[5:20, 5:30], truth[30:] = 3, -1
    prediction = truth.clip(0)
    prediction[:, 50:] = 1
    attention = rng.random((4, 6)).astype(np.float32)
    return cards.GalleryItem("photo & one", image, prediction, truth, (("attention: cow", attention),))


@pytest.fixture(scope="module")
def page(tmp_path_factory, summary, item):
    folder = tmp_path_factory.mktemp("run")
    with MetricLog(folder) as log:
        for step in (1, 2, 3):
            log.write(
                step,
                "train",
                {"a/L_seg": 1 / step, "b/L_cls": 2.0, "b/attended": 0.5, "ready/bank": step / 3}
                | {"learning_rate": 0.1, "images_per_second": 9},
            )
        log.write(3, "eval", summary.scalars(), "val")
    path = report.write_report(
        folder,
        title="pets <1>",
        evaluations=[report.EvaluationReport("val", summary, {"Photos": [item]})],
        history=read_history(folder),
        facts={"seed": "7"},
        config={"seed": 7, "path": folder},
        timings={"train": 3.0, "evaluation": 1.0},
    )
    assert path == folder / "report.html"
    return path.read_text()


def test_page_is_well_formed_and_needs_no_network(page):
    parsed = Page(page)
    assert parsed.open == []
    assert not re.search(r"https?://|<script|<link|url\(", page)
    assert "pets &lt;1&gt;" in page
    assert "photo &amp; one" in page


def test_page_tells_the_speed(page):
    speed = re.findall(r"<dt>(.+)</dt><dd>(.+)</dd>", page.split("<h2>The run</h2>")[1])
    assert speed == [("images/s", "9.0")]


def test_pictures_can_be_decoded(page):
    parsed = Page(page)
    pictures = [Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))) for url in parsed.pictures]
    assert [p.format for p in pictures] == ["PNG"] * 4 + ["JPEG"] * 4
    assert [p.size for p in pictures[4:]] == [(120, 80)] * 4  # small photos are at most doubled
    assert parsed.captions[4:] == ["photo", "truth", "prediction", "attention: cow"]
    assert all(np.asarray(p).std() > 1 for p in pictures)


def test_class_table_is_sorted_and_absent_classes_are_named(page):
    rows = [row for row in Page(page).rows if row]
    assert [row[0] for row in rows] == ["background", "cat", "cow", "<dog>"]
    assert rows[1] == ["cat", "base", "50.0", "60.0", "66.7", "–", "10", "8.85"]
    assert rows[3] == ["<dog>", "base", "0.0", "–", "0.0", "–", "0", "0.00"]
    assert re.search(r"1 absent classes.*?<p>unicorn</p>", page, re.DOTALL)


def test_means_are_shown(page, summary):
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))
    for name, value in (
        ("mIoU all", summary.mean_iou),
        ("mIoU novel", summary.novel_iou),
        ("hIoU", summary.harmonic_iou),
    ):
        assert f"{name} {100 * value:.1f} " in text
    assert f"background {100 * summary.background_iou:.1f} IoU, in no mean" in text
    share = 100 * (30 * 60 - 30 * 10) / (30 * 60)
    assert f"{share:.1f} % of labelled pixels right" in text


def test_a_run_without_lines_or_photos_has_a_report(tmp_path, summary):
    evaluations = [report.EvaluationReport("val", summary, {})]
    path = report.write_report(
        tmp_path, title="x", evaluations=evaluations, history=[], facts={}, config={}, timings={}
    )
    assert Page(path.read_text()).pictures == []


def test_smoothed_is_the_mean_of_the_last_values():
    values = np.array([4.0, 2.0, 6.0, 1.0])
    np.testing.assert_allclose(curves.smoothed(values, 3), [4, 3, 4, 3])


def lightness_and_hue(rgb):
    """OKLab by Ottosson's matrices from linear sRGB, (n,) each; hue in degrees."""
    linear = np.where(rgb <= 10, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    to_lms = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    to_lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    lightness, a, b = (np.cbrt(linear @ np.array(to_lms).T) @ np.array(to_lab).T).T
    return lightness, np.degrees(np.arctan2(b, a)) % 360


def test_a_class_has_one_colour_whatever_stands_beside_it():
    names = ("cat", "dog", "猫", "\udcfc", "")
    alone = [colours.class_colours([name])[0].tolist() for name in names]
    assert colours.class_colours(names).tolist() == alone
    assert colours.class_colours(names[::-1]).tolist() == alone[::-1]
    assert colours.class_colours(()).shape == (0, 3)
    assert len({tuple(rgb) for rgb in alone}) == 5


def test_colours_of_classes_differ_and_neighbours_in_hue_are_not_equally_light():
    rgb = colours.class_colours([f"class {i}" for i in range(400)])
    assert len(np.unique(rgb, axis=0)) > 350
    lightness, hue = lightness_and_hue(rgb.astype(float))
    assert lightness.min() > 0.4
    assert lightness.max() < 0.92
    of_thirty = np.round(hue / 12).astype(int) % 30
    assert set(of_thirty) == set(range(30))
    for k in range(30):
        here, beside = lightness[of_thirty == k], lightness[of_thirty == (k + 1) % 30]
        assert np.abs(here[:, None] - beside).min() > 0.03


def test_the_classes_of_the_quickstart_are_told_apart():
    from data_pipelines.scenes.classes import CLASSES

    rgb = colours.class_colours(CLASSES).astype(float)
    assert (np.linalg.norm(rgb[:, None] - rgb, axis=-1) + 1e9 * np.eye(len(rgb))).min() > 20


def test_overlay_leaves_background_clear_and_greys_the_unlabelled():
    image = np.full((9, 9, 3), 200, np.uint8)
    label = np.zeros((9, 9), np.int32)
    label[:, 3:6], label[:, 6:] = 1, -1
    shown = colours.overlay(image, label, np.array([[0, 0, 0], [250, 0, 100]], np.uint8), clear=0, opacity=0.5)
    assert shown[4, 1].tolist() == [200, 200, 200]
    assert shown[4, 2].tolist() == [255, 255, 255]  # the outline
    assert shown[4, 4].tolist() == [225, 100, 150]
    assert shown[4, 7].tolist() == [164, 164, 164]


def test_heat_map_is_brighter_where_attended():
    attention = np.zeros((2, 4), np.float32)
    attention[0, 0] = 1.0
    shown = colours.heat_map(np.full((20, 40, 3), 90, np.uint8), attention).astype(int).sum(-1)
    assert shown.shape == (20, 40)
    assert shown[:4, :4].min() > shown[:, 20:].max() + 100


def test_a_report_is_written_whatever_stands_in_the_log(tmp_path):
    """Names that would be formulas or paths, the largest numbers, and a line that is broken."""
    names = ("a/b/L_seg", "$x^{/L_seg", "a/L_", "a/L_s{g", "/L_seg")
    with MetricLog(tmp_path) as log:
        for step in (1, 2):
            log.write(step, "train", dict.fromkeys(names, 3e38) | {"learning_rate": -3e38, "images_per_second": 1e-300})
            log.write(step, "eval", {"mIoU": 3e38, "mIoU_base": float("nan")}, "$x^{")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3\n{"step": 3, "kind": "train", "a/L_seg": 1.0}\n')
    history = read_history(tmp_path)
    assert [line["step"] for line in history] == [1, 1, 2, 2, 3]
    report.write_report(tmp_path, title="x", evaluations=[], history=history, facts={}, config={}, timings={})
    page = Page((tmp_path / "report.html").read_text())
    assert sum(url.startswith("data:image/png") for url in page.pictures) == 3


@pytest.mark.parametrize(
    ("shares", "note"),
    [
        ((0.2, 0.8, 1.0), "; bank ready at step 3, losses that need it are 0 at first"),
        ((0.2, 0.8), "; bank 80% ready at the last step, losses that need it are 0 at first"),
        ((1.0, 1.0), ""),
        ((), ""),
    ],
)
def test_the_losses_say_what_they_waited_for(shares, note):
    history = [{"kind": "train", "step": i, "tags/L_aux": 0.0, "ready/bank": s} for i, s in enumerate(shares, start=1)]
    history += [{"kind": "train", "step": 9, "tags/L_aux": 1.0}]
    assert curves.draw_curves(history)[0][0] == f"Losses per stream, before their weights{note}"
