"""ca_*: consecutive steps with a memory bank, driven pair by pair in the order of the recording."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from larvseg_jax import ca_classifier, losses, memory_bank
from larvseg_jax.memory_bank import MemoryBank
from larvseg_jax.vocabulary import IGNORE_LABEL
from tests.parity.golden import (
    Columns,
    Golden,
    channels_first,
    channels_last,
    head_forward,
    head_of,
    loss_grid,
    separate_columns,
    tags_of,
)
from tests.parity.head_cases import check_gradients, image_level_losses
from tests.parity.table import Report

NOT_ATTENDED = (-1, -1, -1)
NO_BACKGROUND, OTHER_LABELS, MINED = 0, 1, 2


@dataclasses.dataclass(frozen=True)
class Pair:
    """What one (image, label) pair did, in the terms of the recording."""

    step: int
    image: int
    slot: int  # of the label among the image's
    label: int
    ready: bool
    background: tuple[int, int, int]  # mode, candidates, classes averaged
    attention: np.ndarray  # (p,)
    row: int
    cursor: int
    chosen: np.ndarray  # (K,)


def check_attention(report: Report, golden: Golden) -> None:
    """All steps of a file: attention, bank, losses and gradients."""
    run = _Run(golden)
    report.exact("bank before", golden["queue_touched"][0].mean(2), _touched_start(golden))
    pairs = []
    for step in range(len(golden["features"])):
        report.exact("image_labels", run.tags[step], golden["image_labels"][step])
        pairs += (of_step := run.read_and_write(step))
        _check_bank(report, golden, run, step)
        _check_losses(report, golden, run, step, of_step)
    _check_pairs(report, golden, pairs)


class _Run:
    """Our functions, compiled for the shapes of one file, and the bank as it stands."""

    def __init__(self, golden: Golden) -> None:
        meta = golden.meta
        self.golden = golden
        self.columns = separate_columns(golden)
        self.head, self.params = head_of(golden)
        self.features = channels_last(golden["features"])
        self.grid = self.features.shape[2:4]
        labels = loss_grid(golden, golden["label"])
        self.size = labels.shape[-2:]
        self.tags = tags_of(labels, golden["image_labels"].shape[-1])
        self.suppress = meta["background_suppression"]
        self.write_first = meta["use_coseg_single_image"]
        self.warmup = meta["memory_bank_warm_up"]
        self.config = ca_classifier.CAConfig(
            variant="own_bank" if self.write_first else "cross_image",
            memory_bank_size=meta["memory_bank_size"],
            foreground_topk=meta["foreground_topk"],
            warmup=self.warmup,
            background_topk=meta["background_topk"],
            background_threshold=meta["background_thresh"],
            background_mse_threshold=meta["background_mse_thresh"],
            class_block=64,
            bank_dtype="float32",
        )
        self.start = start_slots(golden)
        self.bank = MemoryBank.from_slots(jnp.asarray(self.start))
        self.forward = jax.jit(functools.partial(_forward, self.head, self.columns, self.grid))
        self.attend = jax.jit(functools.partial(_attend, self.config, self.columns))
        self.find = jax.jit(functools.partial(_find, self.config))
        self.write = jax.jit(memory_bank.write)
        self.loss = jax.jit(
            jax.value_and_grad(
                functools.partial(_loss, self.head, self.columns, self.size, meta), argnums=(0, 1), has_aux=True
            )
        )

    def read_and_write(self, step: int) -> list[Pair]:
        """Every pair of a step reads the bank, then writes to it (the single-image variant: writes, then reads)."""
        patches, table = self.forward(self.params, self.features[step])
        self.patches = patches
        pairs = []
        for image, slot in np.argwhere(self.tags[step] != IGNORE_LABEL).tolist():
            inputs = patches[image : image + 1], table, jnp.asarray(self.tags[step, image : image + 1])
            vectors, chosen = self.find(*inputs)
            label = int(self.tags[step, image, slot])
            row = int(self.columns.rows[label])
            before = self.bank
            after = self.write(before, jnp.array([row]), vectors[:, slot], jnp.array([True]))
            source = after if self.write_first else before
            pairs.append(
                Pair(
                    step,
                    image,
                    slot,
                    label,
                    *self._attention(inputs, slot, source, row),
                    row,
                    int(before.cursor[row]),
                    np.asarray(chosen[0, slot]),
                )
            )
            self.bank = after
        return pairs

    def _attention(self, inputs, slot: int, bank: MemoryBank, row: int):
        """(ready, background, attention) of a pair."""
        nothing = np.full(self.grid[0] * self.grid[1], np.nan, np.float32)
        if not bank.is_warm(jnp.array(row), self.warmup):
            return False, NOT_ATTENDED, nothing
        if not self.suppress:
            # The original then normalises over an axis of length 1: no pixel stands out. Ours has no such mode.
            return True, NOT_ATTENDED, np.zeros_like(nothing)
        attention, mined = self.attend(*inputs, bank)
        tags = np.asarray(inputs[2])
        others = int(np.sum(tags != IGNORE_LABEL)) - 1
        kept, candidates = int(mined.kept[0]), int(mined.candidates[0])
        background = (MINED if kept else NO_BACKGROUND, candidates, kept)
        return True, (OTHER_LABELS, others, others) if others else background, np.asarray(attention[0, slot])


def start_slots(golden: Golden) -> np.ndarray:
    """The recorded bank as ours: the mean of the K features of every slot, (c, m, d)."""
    return golden["queue_codebook"][golden["queue_init_index"]].mean(2)


def _forward(head, columns: Columns, grid, params, features):
    patches, table = head_forward(head, params, features, columns)
    return patches.reshape(len(patches), grid[0] * grid[1], -1), table


def _find(config, patches, table, tags):
    return memory_bank.region_features(patches, ca_classifier.tag_scores(patches, table, tags), config.foreground_topk)


def _attend(config, columns: Columns, patches, table, tags, bank: MemoryBank):
    means = bank.class_mean[jnp.asarray(columns.rows)]
    label_means = means[jnp.maximum(tags, 0)]
    foreground = jnp.einsum("bpd,bd->bp", patches, label_means[:, 0])
    mined = ca_classifier.mine_background(patches, table, means, tags[:, 0], foreground, config)
    return ca_classifier.attention_map(patches, label_means, tags != IGNORE_LABEL, mined), mined


def _loss(head, columns: Columns, size, meta, params, features, tags, attention, ready):
    """The total loss of a step, given the attention (b, l, p) that its pairs had read."""
    patches, table = head_forward(head, params, features, columns)
    b, h, w, d = patches.shape
    basic = image_level_losses(patches, table, tags, size)
    pooling = losses.pooling_weights(ca_classifier.attention_weights(attention, (h, w), size), (h, w))
    pooled = losses.pooled_logits(patches.reshape(b, h * w, d), pooling, table)
    coseg = jnp.where(ready, losses.image_label_losses(pooled, tags, table.multiplicity), 0.0)
    loss_basic = meta["basic_loss_weight"] * losses.mean_over_pairs(basic, tags)
    loss_coseg = meta["coseg_loss_weight"] * losses.mean_over_pairs(coseg, tags)
    return loss_basic + loss_coseg, (loss_basic, loss_coseg, basic, coseg)


def _touched_start(golden: Golden) -> np.ndarray:
    return start_slots(golden)[golden["touched"]]


def _check_bank(report: Report, golden: Golden, run: _Run, step: int) -> None:
    embeds = channels_first(run.patches.reshape(run.features[step].shape))
    report.array("embeds", embeds, golden["embeds"][step])
    slots = np.asarray(run.bank.slots)
    touched = golden["touched"]
    recorded = golden["queue_touched"][step + 1].mean(2)
    report.array("bank after", slots[touched], recorded)
    report.array("bank after, class means", run.bank.class_mean[touched], recorded.mean(1))
    report.exact("bank, untouched classes", np.delete(slots, touched, 0), np.delete(run.start, touched, 0))
    report.exact("ptr (cursor)", run.bank.cursor, golden["ptr"][step + 1])
    report.exact("full (wraps)", run.bank.wraps, golden["full"][step + 1])


def _check_losses(report: Report, golden: Golden, run: _Run, step: int, pairs: list[Pair]) -> None:
    tags = run.tags[step]
    attention = np.zeros((*tags.shape, run.grid[0] * run.grid[1]), np.float32)
    ready = np.zeros(tags.shape, bool)
    for pair in pairs:
        ready[pair.image, pair.slot] = pair.ready
        attention[pair.image, pair.slot] = np.where(pair.ready, pair.attention, 0.0)
    inputs = run.params, run.features[step], *map(jnp.asarray, (tags, attention, ready))
    (total, (basic, coseg, *of_pairs)), gradients = run.loss(*inputs)
    report.loss("loss_basic", basic, golden["loss_basic"][step])
    report.loss("loss_coseg", coseg, golden["loss_coseg"][step])
    report.loss("total", total, golden["total"][step])
    report.loss("acc_seg", 0.0, golden["acc_seg"][step])
    here = golden["pair_step"] == step
    for name, ours in zip(("pair_basic", "pair_coseg"), of_pairs, strict=True):
        report.loss(name, ours[tags != IGNORE_LABEL], golden[name][here])
    recorded = {name: values[step] for name, values in golden.arrays.items() if name.startswith("grad_")}
    check_gradients(report, *gradients, recorded)


def _check_pairs(report: Report, golden: Golden, pairs: list[Pair]) -> None:
    def column(name: str) -> np.ndarray:
        return np.array([getattr(pair, name) for pair in pairs])

    for ours, theirs in (("step", "step"), ("image", "img"), ("label", "label"), ("ready", "ready")):
        report.exact(f"pair_{theirs}", column(ours), golden[f"pair_{theirs}"])
    mode, candidates, averaged = column("background").T
    report.exact("pair_bg_mode", mode, golden["pair_bg_mode"])
    report.exact("pair_n_candidates", candidates, golden["pair_n_candidates"])
    report.exact("pair_n_background", averaged, golden["pair_n_background"])
    ready = column("ready")
    report.array("pair_attention", column("attention")[ready], golden["pair_attention"][golden["pair_ready"]])
    written = {"step": "step", "img": "image", "label": "label", "cls": "row", "slot": "cursor", "patch": "chosen"}
    for theirs, ours in written.items():
        report.exact(f"enq_{theirs}", column(ours), golden[f"enq_{theirs}"])
