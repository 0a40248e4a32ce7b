"""The notebooks in colabs/ are run from top to bottom by Jupyter, made quick, and their outputs looked at.

What makes them quick stands in a cell that is put behind the one tagged "parameters"; all other cells run as they are.
"""

import asyncio
import base64
import io
import os
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

from data_pipelines.scenes import BASE, CLASSES, NOVEL
from larvseg_jax.shipped.shipped import PHOTOS
from tests.child import QUICKLY
from tests.predict.models import write_model

REPOSITORY = Path(__file__).resolve().parent.parent.parent
NOTEBOOKS = sorted((REPOSITORY / "colabs").glob("*.ipynb"))
NAMES = ("background", "cat", "dog", "cow", "horse", "sheep", "sofa")
LEGEND = 300  # pixels to the right of an overlay

ANIMALS = ("cat", "dog", "horse")  # photos
SIZE = (320, 240)  # of all of them, so that their programs are compiled once

# Put behind the parameters of both, of one, of the other.
SMALL_DATA = """
from data_pipelines.scenes import pictures

pictures.SIZES.update(dict.fromkeys(pictures.SIZES, 8))
"""
SMALL_INFERENCE = """
import sys
import types
from pathlib import Path

import configs.quickstart
from larvseg_jax.shipped import shipped

UPLOAD, BUCKET, STEPS = True, "gs://bucket/there", 3
shipped.PHOTOS = Path("photos")
colab = types.ModuleType("google.colab")
colab.files = types.SimpleNamespace(upload=lambda: {"mine.jpg": b""})
colab.auth = types.SimpleNamespace(authenticate_user=lambda: print("asked who you are"))
sys.modules["google.colab"] = colab
whole = configs.quickstart.get_config


def tiny():
    config = whole("baseline,objects=false")
    config.model.update(width=16, depth=1, num_heads=2, mlp_dim=32)
    for stream in config.streams.values():
        stream.update(batch_size=4, crop_size=32)
    config.gallery = 0
    return config


configs.quickstart.get_config = tiny
"""
SMALL_TRAINING = """
STEPS, STOP_AT = 30, 2
OPTIONS = [f"--config.model.{x}" for x in ("width=16", "depth=1", "num_heads=2", "mlp_dim=32")]
for stream in ("masks", "tags", "objects"):
    OPTIONS += [f"--config.streams.{stream}.{x}" for x in ("batch_size=4", "crop_size=32")]
OPTIONS += ["--config.method.ca_classifier.foreground_topk=4", "--config.log_every=1", "--config.gallery=1"]
"""
# The bucket is the run that the notebook itself has made.
GCLOUD = """#!/bin/sh
[ "$1 $2 $3 $4" = "storage cp --recursive gs://bucket/there/checkpoints" ] && cp -r runs/small/checkpoints "$5"
"""


class Executed:
    """A notebook that has been run in a folder: what its cells put out, by their ids."""

    def __init__(self, name: str, folder: Path, settings: str) -> None:
        notebook = nbformat.read(REPOSITORY / "colabs" / f"{name}.ipynb", 4)
        (place,) = (i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ()))
        notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(settings))
        own = dict(
            PYTHONPATH=str(REPOSITORY),
            PATH=f"{folder}{os.pathsep}{os.environ['PATH']}",
            XLA_FLAGS=QUICKLY,
            IPYTHONDIR=str(folder / "ipython"),
            MPLBACKEND="module://matplotlib_inline.backend_inline",
        )
        client = NotebookClient(
            notebook, timeout=900, startup_timeout=300, iopub_timeout=60, resources={"metadata": {"path": str(folder)}}
        )
        with pytest.MonkeyPatch.context() as patch:
            for name in ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR"):  # nothing of whoever runs the tests
                patch.setenv(name, str(folder / "jupyter"))
            # In a loop that is closed: `execute` leaves its own to whatever test comes when it is collected.
            asyncio.run(client.async_execute(env=os.environ | own))
        self._cells = {cell.id: cell for cell in notebook.cells}

    def text(self, ident: str) -> str:
        """What a cell printed and, if that is text, showed."""
        outputs = self._cells[ident].outputs
        return "".join(x.text if x.output_type == "stream" else x.data.get("text/plain", "") for x in outputs)

    def shown(self, ident: str, kind: str) -> list[str]:
        """What a cell showed as a MIME type."""
        return [x.data[kind] for x in self._cells[ident].outputs if x.output_type != "stream" and kind in x.data]

    def pictures(self, ident: str) -> list[np.ndarray]:
        """The pictures that a cell showed, RGB."""
        shown = (base64.b64decode(text) for text in self.shown(ident, "image/png"))
        return [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int) for data in shown]


def is_grey(pixels: np.ndarray) -> np.ndarray:
    return np.ptp(pixels, axis=-1) == 0


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_its_addresses_agree(path):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
    assert max(cell.source.count("\n") for cell in notebook.cells) < 35
    badge, settings = notebook.cells[0].source, notebook.cells[2].source
    account = re.search(r'REPOSITORY = "https://github\.com/(\w+)/larvseg_jax"', settings)[1]
    assert f"https://colab.research.google.com/github/{account}/larvseg_jax/blob/main/colabs/{path.name}" in badge
    assert f"colabs/{path.name}" in (REPOSITORY / "README.md").read_text()


@pytest.fixture(scope="module")
def shipped_weights() -> Path | None:
    """The weights under the model `animals`, where they are; else a stand-in takes its place."""
    shared = os.environ.get("LARVSEG_SHARED") or REPOSITORY.parent / "shared"
    file = Path(os.environ.get("LARVSEG_DINOV2") or Path(shared, "weights/dinov2_vits14.npz"))
    return file if file.is_file() else None


@pytest.fixture(scope="module")
def inference(tmp_path_factory, shipped_weights):
    folder = tmp_path_factory.mktemp("inference")
    (folder / "photos").mkdir()
    for path in [*(folder / "photos" / f"{name}.jpg" for name in ANIMALS), folder / "mine.jpg"]:
        photo = Image.open(PHOTOS / (path.name if path.stem in ANIMALS else "cow.jpg"))
        photo.resize(SIZE).save(path)
    (folder / "gcloud").write_text(GCLOUD)
    (folder / "gcloud").chmod(0o755)
    model, pretrained = "animals", str(shipped_weights)
    if shipped_weights is None:
        write_model(folder / "stand_in.safetensors", NAMES, ("dog", "cow", "sheep"), "background")
        model, pretrained = "stand_in.safetensors", None
    settings = f"MODEL, PRETRAINED = {model!r}, {pretrained!r}\n"
    return Executed("inference", folder, settings + SMALL_DATA + SMALL_INFERENCE)


@pytest.mark.slow
def test_photos_become_segments(inference):
    assert inference.text("install") == ""
    assert "from tags:  dog, cow, sheep\n" in inference.text("load")
    overlays = inference.pictures("photos")
    assert len(overlays) == len(ANIMALS)
    for name, overlay in zip(ANIMALS, overlays, strict=True):
        photo = np.asarray(Image.open(PHOTOS / f"{name}.jpg").resize(SIZE)).astype(int)
        assert overlay.shape[1] == photo.shape[1] + LEGEND
        seen = overlay[: photo.shape[0], :-LEGEND]
        assert 6 < np.abs(seen - photo).mean() < 120  # coloured, and still to be seen
        assert f"photos/{name}.jpg, {photo.shape[1]} x {photo.shape[0]} pixels" in inference.text("photos")
    (table,) = inference.shown("table", "text/markdown")
    head, _, *rows = table.splitlines()
    assert head.startswith("| class | group | share |")
    shares = [float(row.split(" | ")[2].removesuffix("%")) for row in rows]
    assert 1 <= len(shares) <= 8
    assert shares == sorted(shares, reverse=True)
    assert inference.text("upload").startswith("<mine.jpg, 320 x ")
    assert len(inference.pictures("upload")) == 1


@pytest.mark.slow
def test_the_shipped_model_names_the_animals(inference, shipped_weights):
    if shipped_weights is None:
        pytest.skip("no DINOv2 here: set LARVSEG_DINOV2 to its file; a stand-in was run")
    found = dict(
        re.findall(
            r"photos/(\w+)\.jpg, .* classes: background [\d.]+ % \(background\), (\w+)", inference.text("photos")
        )
    )
    assert found == {name: name for name in ANIMALS}


@pytest.mark.slow
def test_classes_are_chosen_by_name_and_by_branch(inference):
    assert " of 3 classes" in inference.text("classes")
    competed = inference.text("branch").splitlines()[0].removeprefix("competed: ").split(", ")
    assert set(competed) - {"bird"} == {"cat", "dog", "cow", "horse", "sheep", "background"}
    (shown,) = inference.pictures("show")
    whole = inference.pictures("photos")[ANIMALS.index("dog")]
    assert is_grey(shown[:, :-LEGEND]).mean() > is_grey(whole[:, :-LEGEND]).mean() + 0.2


@pytest.mark.slow
def test_a_checkpoint_is_restored(inference):
    assert "step 3/3  loss " in inference.text("small-run")
    assert f"{len(CLASSES)} classes; <picture, 384 x 384 pixels" in inference.text("restore")
    assert [x.shape[:2] for x in inference.pictures("restore")] == [(384, 384 + LEGEND)]
    assert inference.text("bucket") == f"asked who you are\n{len(CLASSES)} classes\n"


@pytest.mark.slow
def test_a_large_vocabulary_keeps_within_its_memory(inference):
    assert inference.text("large").startswith("21,841 classes, ")
    all_scores, *budgets = inference.text("memory").splitlines()
    assert all_scores == "all scores at once would be 21,841 MiB"
    found = [re.findall(r"[\d,]+(?= MiB|, taken|;)|(?:True|False)$", line) for line in budgets]
    numbers = [[int(number.replace(",", "")) for number in line[:3]] for line in found]
    assert [line[-1] for line in found] == ["True"] * 2
    assert [allowed for allowed, _, _ in numbers] == [1536, 320]
    assert all(taken <= computed <= allowed for allowed, computed, taken in numbers)
    assert numbers[0][1] > numbers[1][1]
    refused = r"refused: 21841 classes at 262144 pixels need 0\.2\d GiB, but the budget is 0\.25 GiB"
    assert re.match(refused, inference.text("refused"))
    assert re.match(r"1\d\d kinds of dog compete: ", inference.text("dogs"))


@pytest.mark.slow
def test_a_training_is_stopped_goes_on_and_predicts(tmp_path):
    trained = Executed("train_quickstart", tmp_path, SMALL_DATA + SMALL_TRAINING)
    assert f"from masks: {', '.join(BASE)}\nfrom tags:  {', '.join(NOVEL)}\n" in trained.text("data")
    (scenes,) = trained.pictures("scenes")
    assert scenes.shape == (160, 960, 3)
    assert "step 1/30  loss " in trained.text("train")
    saved = int(re.search(r"goes on from step (\d+), which is saved", trained.text("train"))[1])
    assert 2 <= saved < 30
    again = trained.text("resume")
    assert f"resumed at step {saved}\n" in again
    logged = [int(step) for step in re.findall(r"^step (\d+)/30  loss", again, re.M)]
    assert logged == list(range(saved + 1, 31))
    assert re.search(r"^step 30: .*mIoU_novel", again, re.M)
    assert len(trained.pictures("curve")) == 1
    (page,) = trained.shown("report", "text/html")
    assert page.startswith("<div><iframe srcdoc=")
    assert "larvseg_jax report" in page
    assert re.match(r"\d+% of the pixels are right; shown are \w+", trained.text("predict"))
    assert [x.shape[:2] for x in trained.pictures("predict")] == [(384, 384 + LEGEND)]
