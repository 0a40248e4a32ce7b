"""ca_*: consecutive steps with a memory bank, driven pair by pair in the order of the recording."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from larvseg_jax.methods.larvseg import ca_classifier, losses, memory_bank
from larvseg_jax.methods.larvseg.ca_classifier import CAConfig
from larvseg_jax.methods.larvseg.memory_bank import MemoryBank
from larvseg_jax.models.cosine_head import ClassTable
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

NOT_ATTENDED, NO_BACKGROUND, OTHER_LABELS, MINED = -1, 0, 1, 2  # pair_bg_mode


class Pair(NamedTuple):
    """What one (image, label) pair read and wrote, under the names of the recording (pair_*, enq_*)."""

    step: int
    img: int
    label: int
    ready: bool
    bg_mode: int
    n_candidates: int
    n_background: int
    s_fg: np.ndarray  # (p,), as is s_bg; not recorded
    s_bg: np.ndarray
    attention: np.ndarray  # (p,)
    cls: int
    slot: int
    patch: np.ndarray  # (K,)


class _Read(NamedTuple):
    """What the compiled function knows of a pair."""

    warm: Any
    s_fg: Any
    s_bg: Any
    candidates: Any
    kept: Any
    cursor: Any
    chosen: Any


def check_attention(report: Report, golden: Golden) -> None:
    """All steps of a file: attention, bank, losses and gradients."""
    columns = separate_columns(golden)
    head, params = head_of(golden)
    config, meta = _config(golden), golden.meta
    all_features = channels_last(golden["features"])
    labels = loss_grid(golden, golden["label"])
    all_tags = tags_of(labels, golden["image_labels"].shape[-1])
    report.exact("image_labels", all_tags, golden["image_labels"])

    forward = jax.jit(functools.partial(head_forward, head, columns=columns))
    read_and_write = jax.jit(functools.partial(_read_and_write, config, jnp.asarray(columns.rows)))
    loss = functools.partial(_loss, head, columns, labels.shape[-2:], meta)
    loss_and_gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))

    start = golden["queue_codebook"][golden["queue_init_index"]].mean(2)  # a slot of ours is a mean of K features
    bank = MemoryBank.from_slots(jnp.asarray(start))
    report.array("bank before", bank.slots[golden["touched"]], golden["queue_touched"][0].mean(2))
    pairs: list[Pair] = []
    for step, (features, tags) in enumerate(zip(all_features, all_tags, strict=True)):
        patches, table = forward(params, features)
        report.array("embeds", channels_first(patches), golden["embeds"][step])
        of_step = []
        for image, slot in np.argwhere(tags != IGNORE_LABEL).tolist():
            bank, read = read_and_write(bank, patches, table, jnp.asarray(tags), image, slot)
            of_step.append(_pair(golden, columns, step, image, tags[image], slot, read))
        _check_bank(report, golden, bank, start, step)
        of_slots = _of_slots(of_step, tags, patches.shape[1] * patches.shape[2])
        results = loss_and_gradients(params, features, *map(jnp.asarray, (tags, *of_slots)))
        _check_losses(report, golden, step, tags, *results)
        pairs += of_step
    _check_pairs(report, golden, pairs)


def _config(golden: Golden) -> CAConfig:
    meta = golden.meta
    return CAConfig(
        variant="own_bank" if meta["use_coseg_single_image"] else "cross_image",
        memory_bank_size=meta["memory_bank_size"],
        foreground_topk=meta["foreground_topk"],
        warmup=meta["memory_bank_warm_up"],
        background_topk=meta["background_topk"],
        background_threshold=meta["background_thresh"],
        background_mse_threshold=meta["background_mse_thresh"],
        class_block=64,
        bank_dtype="float32",
    )


def _read_and_write(
    config: CAConfig, rows, bank: MemoryBank, patches, table: ClassTable, all_tags, image, slot
) -> tuple[MemoryBank, _Read]:
    """One pair reads the bank and writes to it; the single-image variant writes first."""
    patches = patches[image].reshape(1, -1, patches.shape[-1])
    tags = all_tags[image][None]
    row = rows[tags[0, slot]]
    scores = ca_classifier.tag_scores(patches, table, tags)
    vectors, chosen = memory_bank.region_features(patches, scores, config.foreground_topk)
    written = memory_bank.write(bank, row[None], vectors[:, slot], jnp.array([True]))

    source = written if config.variant == "own_bank" else bank
    means = source.class_mean[rows]
    label_means = means[jnp.maximum(tags, 0)]
    foreground = jnp.einsum("bpd,bd->bp", patches, label_means[:, 0])
    mined = ca_classifier.mine_background(patches, table, means, tags[:, 0], foreground, config)
    s_fg = ca_classifier.bank_scores(patches, label_means)
    s_bg = ca_classifier.background_scores(patches, s_fg, tags != IGNORE_LABEL, mined)
    scores = source.is_warm(row, config.warmup), s_fg[0, slot], s_bg[0, slot]
    return written, _Read(*scores, mined.candidates[0], mined.kept[0], bank.cursor[row], chosen[0, slot])


def _pair(golden: Golden, columns: Columns, step: int, image: int, tags: np.ndarray, slot: int, read: _Read) -> Pair:
    others = int(np.sum(tags != IGNORE_LABEL)) - 1
    candidates, kept = int(read.candidates), int(read.kept)
    s_fg, s_bg = np.asarray(read.s_fg), np.asarray(read.s_bg)
    if not read.warm:
        background = NOT_ATTENDED, -1, -1
    elif not golden.meta["background_suppression"]:
        # The original then normalises over an axis of length 1: no pixel stands out. Ours has no such mode.
        background, s_bg = (NOT_ATTENDED, -1, -1), s_fg
    elif others:
        background = OTHER_LABELS, others, others
    else:
        background = MINED if kept else NO_BACKGROUND, candidates, kept
    label = int(tags[slot])
    row = int(columns.rows[label])
    maps = s_fg, s_bg, np.asarray(ca_classifier.norm(jnp.asarray(s_fg - s_bg)[None, None]))[0, 0]
    return Pair(step, image, label, bool(read.warm), *background, *maps, row, int(read.cursor), np.asarray(read.chosen))


def _of_slots(pairs: list[Pair], tags: np.ndarray, patches: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """S_fg and S_bg (b, l, p) and readiness (b, l) of a step, from its pairs in the order of the slots."""
    present = tags != IGNORE_LABEL
    s_fg, s_bg = np.zeros((2, *tags.shape, patches), np.float32)
    ready = np.zeros(tags.shape, bool)
    if pairs:
        s_fg[present] = [pair.s_fg for pair in pairs]
        s_bg[present] = [pair.s_bg for pair in pairs]
        ready[present] = [pair.ready for pair in pairs]
    return s_fg, s_bg, ready


def _loss(head, columns: Columns, size, meta, params, features, tags, s_fg, s_bg, ready):
    """The total loss of a step, given what its pairs had read."""
    patches, table = head_forward(head, params, features, columns)
    b, h, w, d = patches.shape
    basic = image_level_losses(patches, table, tags, size)
    pooling = ca_classifier.attention(s_fg, s_bg, (h, w), size)
    pooled = losses.pooled_classifier(patches.reshape(b, h * w, d), table)(pooling)
    coseg = jnp.where(ready, losses.image_label_losses(pooled, tags, table.multiplicity), 0.0)
    loss_basic = meta["basic_loss_weight"] * losses.mean_over_pairs(basic, tags)
    loss_coseg = meta["coseg_loss_weight"] * losses.mean_over_pairs(coseg, tags)
    return loss_basic + loss_coseg, (loss_basic, loss_coseg, basic, coseg)


def _check_bank(report: Report, golden: Golden, bank: MemoryBank, start: np.ndarray, step: int) -> None:
    touched, slots = golden["touched"], np.asarray(bank.slots)
    recorded = golden["queue_touched"][step + 1].mean(2)
    report.array("bank after", slots[touched], recorded)
    report.array("bank after, class means", bank.class_mean[touched], recorded.mean(1))
    report.exact("bank, untouched classes", np.delete(slots, touched, 0), np.delete(start, touched, 0))
    report.exact("ptr (cursor)", bank.cursor, golden["ptr"][step + 1])
    report.exact("full (wraps)", bank.wraps, golden["full"][step + 1])


def _check_losses(report: Report, golden: Golden, step: int, tags: np.ndarray, values, gradients) -> None:
    total, (basic, coseg, *of_pairs) = values
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
    ours = {name: np.array([getattr(pair, name) for pair in pairs]) for name in Pair._fields}
    for name in ("step", "img", "label", "ready", "bg_mode", "n_candidates", "n_background"):
        report.exact(f"pair_{name}", ours[name], golden[f"pair_{name}"])
    ready = golden["pair_ready"]  # where nothing was attended NaN is recorded
    report.array("pair_attention", ours["attention"][ready] if ready.any() else [], golden["pair_attention"][ready])
    for name in ("step", "img", "label", "cls", "slot", "patch"):
        report.exact(f"enq_{name}", ours[name], golden[f"enq_{name}"])
