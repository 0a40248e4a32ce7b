"""How well a run tells photos by their captions, and captions by their photos: recall among held-out pairs.

    python -m benchmarks.retrieval --run=runs/vilseg_flickr8k --split=val                # 1,000 photos, 5 captions each
    python -m benchmarks.retrieval --run=DIR --stream=captions --split=val --count=1000 [--data_root=DIR] [--step=N]

Of a run that learns from captions (ViL-Seg, CLIP). The photos are the first so many of another split of a stream's
source, in their middle squares; all of their captions take part. In percent:

  photo to caption @k   of the photos, those of which one of their captions is among the k nearest of all
  caption to photo @k   of the captions, those whose photo is among the k nearest of all
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from rich.table import Table

from data_pipelines import transforms
from data_pipelines.caption_views import CaptionView
from data_pipelines.sources import open_source
from larvseg_jax.cli import fail
from larvseg_jax.config import Experiment
from larvseg_jax.console import console, track
from larvseg_jax.errors import UserError
from larvseg_jax.methods.method import ReadsText
from larvseg_jax.trained import Trained, load_trained
from larvseg_jax.weights.places import check_model

AT = (1, 5)
BATCH = 50  # photos, or captions, that a tower sees at a time


def recalls(
    photos: Float[np.ndarray, "p d"], captions: Float[np.ndarray, "c d"], owner: Int[np.ndarray, " c"]
) -> dict[str, float]:
    """Shares by the names above, of unit vectors; caption i is of photo owner[i].

    A pair that is as near as the right one counts as nearer: equal captions are no success by their order.
    """
    cosines = photos @ captions.T
    own = owner[None] == np.arange(len(photos))[:, None]
    best = np.where(own, cosines, -np.inf).max(1)
    before = ((cosines >= best[:, None]) & ~own).sum(1)
    right = cosines[owner, np.arange(len(captions))]
    before_photo = (cosines >= right[None]).sum(0) - 1
    return {f"photo to caption @{k}": float((before < k).mean()) for k in AT} | {
        f"caption to photo @{k}": float((before_photo < k).mean()) for k in AT
    }


def held_out(
    run: Experiment, stream: str, split: str, count: int
) -> tuple[Float[np.ndarray, "p s s 3"], list[str], Int[np.ndarray, " c"], CaptionView]:
    """Photos of another split of a stream's source in their middle squares, all their captions, and whose these are."""
    config = run.streams.get(stream)
    if config is None or not isinstance(config.view, CaptionView):
        raise UserError(f"--stream={stream}: the run has no such stream of captions, only {', '.join(run.streams)}")
    source = open_source(
        dataclasses.replace(config.source, split=split),
        run.data_root,
        run.catalogue.label_set(config),
        reads="captions",
        max_megapixels=run.max_megapixels,
    )
    view = dataclasses.replace(config.view, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=False, jitter=0.0, grey=0.0)
    view = dataclasses.replace(view, blur=0.0, local_views=0, recoloured=False)
    photos: list[np.ndarray] = []
    captions: list[str] = []
    owner: list[int] = []
    total = min(count, len(source))
    for i in track(range(total), total, "photos"):
        example = source[i]
        row = view.row(example, np.random.default_rng(0), run.catalogue.label_set(config))
        photos.append(transforms.normalise(row["image"]))
        captions += example["captions"]
        owner += [i] * len(example["captions"])
    return np.stack(photos), captions, np.array(owner), view


def vectors_of(
    trained: Trained, photos: Float[np.ndarray, "p s s 3"], ids: Int[np.ndarray, "c l"]
) -> tuple[Float[np.ndarray, "p d"], Float[np.ndarray, "c d"]]:
    """Unit vectors of photos and of captions, as the method compares them in training."""
    method = trained.method
    if not isinstance(method, ReadsText):
        raise UserError("the run's method does not read text: give a run of ViL-Seg or CLIP")
    of_photos, of_captions = jax.jit(method.image_vectors), jax.jit(method.caption_vectors)
    return _in_batches(of_photos, trained.params, photos), _in_batches(of_captions, trained.params, ids)


def _in_batches(function: Any, params: Any, values: np.ndarray) -> np.ndarray:
    filled = np.concatenate([values, np.repeat(values[:1], -len(values) % BATCH, axis=0)])
    parts = [function(params, jnp.asarray(filled[i : i + BATCH])) for i in range(0, len(filled), BATCH)]
    return np.concatenate(parts)[: len(values)]


def measure(
    folder: Path, stream: str, split: str, count: int, step: int | None = None, data_root: str | None = None
) -> dict[str, float]:
    """The recalls of a checkpoint."""
    check_model(folder, step)
    trained = load_trained(folder, step)
    run = trained.experiment(None, data_root)
    photos, captions, owner, view = held_out(run, stream, split, count)
    ids = np.stack([view.tokenizer(caption) for caption in captions])
    found = recalls(*vectors_of(trained, photos, ids), owner)
    table = Table("", "%", "by chance", title=f"{len(photos)} photos, {len(captions)} captions, step {trained.step}")
    for name, share in found.items():
        k = int(name.rpartition("@")[2])
        table.add_row(name, f"{100 * share:.1f}", f"{100 * k / len(photos):.2f}")
    console.print(table)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, type=Path, help="folder of a run or of a checkpoint")
    parser.add_argument("--stream", default="captions", help="whose source and view are taken")
    parser.add_argument("--split", default="val", help="of that source: photos that were not learnt from")
    parser.add_argument("--count", type=int, default=1000, help="photos")
    parser.add_argument("--step", type=int, help="of the checkpoint; by default the newest")
    parser.add_argument("--data_root", help="where the data is, if not where it was in training")
    given = parser.parse_args(arguments)
    try:
        measure(given.run, given.stream, given.split, given.count, given.step, given.data_root)
    except UserError as error:
        fail(str(error))


if __name__ == "__main__":
    main()
