"""What the image-level losses cost as classes are added: closed form, every pixel's logits, 100 sampled classes.

    python -m benchmarks.class_scaling [--plot=docs/class_scaling.png] [--repeats=5] [--largest_gb=6]

L_cls + L_aux of two pictures of 320 x 320 with one tag each (20 x 20 patches, loss grid 160 x 160, width 768), class
projection included, forward and backward. Every measurement has a process of its own; a form that would need more
than --largest_gb is compiled and not run. Then the memory bank with one mean per slot against K vectors per slot, and
the FLOPs of a training step of configs/c171_i21k.py by part.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from benchmarks._memory import forget_peak, peak_resident, resident
from benchmarks._scaling_figures import print_bank, print_flops
from benchmarks._scaling_plot import plot
from benchmarks._turns import seconds_in_turn
from larvseg_jax.devices.memory import program_memory
from larvseg_jax.methods.larvseg.loss_grid import everywhere, pooling_weights
from larvseg_jax.methods.larvseg.losses import image_label_losses, mean_over_pairs, pooled_classifier
from larvseg_jax.models.cosine_head import ClassTable, standardised_logits, unit
from larvseg_jax.models.precision import precise_einsum
from larvseg_jax.models.resize import resize_bilinear

CLASSES = (150, 847, 2_000, 5_000, 10_450, 21_841)
IMAGES, GRID, SIZE, WIDTH = 2, 20, 160, 768
SAMPLED = 100


class Learnt(NamedTuple):
    """What the losses have gradients to."""

    patches: Float[Array, "b h w d"]
    embeddings: Float[Array, "n d"]
    projection: Float[Array, "d d"]
    gamma: Float[Array, ""]


class Given(NamedTuple):
    """Tags (columns, -1 where there are fewer), attention on the loss grid, classes drawn besides the tags."""

    tags: Int[Array, "b l"]
    attention: Float[Array, "b l H W"]
    drawn: Int[Array, " s"]


Form = Callable[[Learnt, Given], Array]


def closed_form(learnt: Learnt, given: Given) -> Array:
    """As the library computes it: all classes, no logits of pixels."""
    table = _table(learnt, learnt.embeddings)
    b, h, w, d = learnt.patches.shape
    pooled = pooled_classifier(learnt.patches.reshape(b, h * w, d), table)
    *_, height, width = given.attention.shape
    weights = everywhere(b, (h, w), (height, width)), pooling_weights(given.attention, (h, w))
    parts = (image_label_losses(pooled(x), given.tags, table.multiplicity) for x in weights)
    return sum((mean_over_pairs(x, given.tags) for x in parts), start=jnp.zeros(()))


def direct_form(learnt: Learnt, given: Given) -> Array:
    """All classes; the logits of every pixel upsampled to the loss grid, weighed by the attention and averaged."""
    return _of_pixels(learnt, given, learnt.embeddings, given.tags)


def sampled_form(learnt: Learnt, given: Given) -> Array:
    """`Original:` the direct form with the classes drawn and those tagged, each a column of its own."""
    drawn = jnp.concatenate([given.tags.reshape(-1), given.drawn])
    columns = jnp.arange(given.tags.size, dtype=given.tags.dtype).reshape(given.tags.shape)
    tags = jnp.where(given.tags < 0, given.tags, columns)
    return _of_pixels(learnt, given, learnt.embeddings[drawn], tags)


FORMS: dict[str, Form] = {"closed form": closed_form, "direct": direct_form, "100 sampled": sampled_form}


def _of_pixels(
    learnt: Learnt, given: Given, embeddings: Float[Array, "n d"], tags: Int[Array, "b l"]
) -> Float[Array, ""]:
    table = _table(learnt, embeddings)
    *_, height, width = given.attention.shape
    logits = resize_bilinear(standardised_logits(learnt.patches, table), (height, width))
    mean = jnp.mean(logits, axis=(1, 2))[:, None]
    attended = precise_einsum("blhw,bhwn->bln", given.attention, logits) / (height * width)
    losses = (image_label_losses(pooled, tags, table.multiplicity) for pooled in (mean, attended))
    return sum((mean_over_pairs(x, tags) for x in losses), start=jnp.zeros(()))


def _table(learnt: Learnt, embeddings: Float[Array, "n d"]) -> ClassTable:
    vectors = unit(precise_einsum("nd,de->ne", embeddings, learnt.projection))
    return ClassTable(vectors, jnp.ones(len(vectors)), learnt.gamma, jnp.zeros(()))


def draw(classes: int) -> tuple[Learnt, Given]:
    """Random patches and classes; one tag a picture, 100 other classes drawn."""
    keys = jax.random.split(jax.random.key(0), 4)
    patches = unit(jax.random.normal(keys[0], (IMAGES, GRID, GRID, WIDTH)))
    projection = WIDTH**-0.5 * jax.random.normal(keys[2], (WIDTH, WIDTH))
    learnt = Learnt(patches, 0.02 * jax.random.normal(keys[1], (classes, WIDTH)), projection, jnp.ones(()))
    attention = jax.nn.sigmoid(jax.random.normal(keys[3], (IMAGES, 1, SIZE, SIZE)))
    drawn = np.random.default_rng(0).permutation(np.arange(IMAGES, classes))[:SAMPLED].astype(np.int32)
    return learnt, Given(jnp.arange(IMAGES, dtype="int32")[:, None], attention, jnp.asarray(drawn))


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Of one form: GB of temporary memory by XLA; best seconds and growth of the process, GB (None: not run)."""

    form: str
    classes: int
    temporary: float
    seconds: float | None = None
    growth: float | None = None
    loss: float | None = None

    def row(self) -> str:
        """Of the table."""
        ms = "not run" if self.seconds is None else f"{1e3 * self.seconds:.0f}"
        growth = "" if self.growth is None else f"{self.growth:.3f}"
        loss = "" if self.loss is None else f"{self.loss:.4f}"
        return f"| {self.classes:,} | {self.form} | {ms} | {self.temporary:.3f} | {growth} | {loss} |"


def compile_form(name: str, learnt: Learnt, given: Given) -> tuple[jax.stages.Compiled, float]:
    """A form with its gradients for arguments of these shapes, and GB of its temporary memory by XLA."""
    compiled = jax.jit(jax.value_and_grad(FORMS[name])).lower(learnt, given).compile()
    memory = program_memory(compiled)
    assert memory is not None
    return compiled, memory.temporary / 1e9


def over_direct(classes: int, repeats: int, largest: float) -> dict[str, float]:
    """The closed form's cost over the direct form's, in this process and in turn.

    Returns "temporary memory" and "time", the best of `repeats`; the latter only if the direct form takes no more
    than `largest` GB.
    """
    learnt, given = jax.block_until_ready(draw(classes))
    (closed, own), (direct, other) = (compile_form(name, learnt, given) for name in ("closed form", "direct"))
    found = {"temporary memory": own / other}
    if other > largest:
        return found
    works = {
        "closed": lambda: jax.block_until_ready(closed(learnt, given)),
        "direct": lambda: jax.block_until_ready(direct(learnt, given)),
    }
    seconds = seconds_in_turn(works, repeats)
    return {"time": min(seconds["closed"]) / min(seconds["direct"])} | found


def measure(name: str, classes: int, repeats: int, largest: float) -> Measurement:
    """Compiles a form and, where it fits, runs it."""
    learnt, given = jax.block_until_ready(draw(classes))
    compiled, temporary = compile_form(name, learnt, given)
    if temporary > largest:
        return Measurement(name, classes, temporary)
    before = resident()
    forget_peak()
    loss, _ = jax.block_until_ready(compiled(learnt, given))
    growth = (peak_resident() - before) / 1e9
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(compiled(learnt, given))
        times.append(time.perf_counter() - begin)
    return Measurement(name, classes, temporary, min(times), growth, float(loss))


def measure_all(repeats: int, largest: float) -> Iterator[Measurement]:
    """Each in a fresh process, so that no memory of another one is there."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
        for classes in CLASSES:
            for name in FORMS:
                yield pool.submit(measure, name, classes, repeats, largest).result()


def main() -> None:
    """Prints the tables and draws the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--plot", type=Path, help="PNG file to draw")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--largest_gb", type=float, default=6.0)
    args = parser.parse_args()
    # On a GPU this process, which uses it for its first line, would take three quarters of the memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    print(f"{os.cpu_count()} {jax.devices()[0].device_kind} cores, jax {jax.__version__}\n")
    print("| classes | form | best ms | temporary memory, GB | growth of the process, GB | loss |")
    print("|---|---|---|---|---|---|")
    found = []
    for m in measure_all(args.repeats, args.largest_gb):
        found.append(m)
        print(m.row(), flush=True)
    if args.plot:
        plot([dataclasses.asdict(m) for m in found], args.plot)
    print_bank()
    print_flops()


if __name__ == "__main__":
    main()
