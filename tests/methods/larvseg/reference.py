"""One training step in NumPy: loops over images, labels, classes and pixels, float64, written from the formulas.

It starts from the model's unit patch features and class vectors. A column of multiplicity m is written out as
m columns; a label means the first of them.
"""

import copy
import dataclasses

import numpy as np

MARGIN = 1e-5
"""Choices (top K, thresholds) closer than this could fall either way in float32: a test needs other numbers."""


@dataclasses.dataclass
class Pair:
    """An (image, label) pair: where L_aux pools (None: it takes no part) and what goes to which bank row.

    `background` says what the attention was held against: "other labels", "mined" or "nothing".
    """

    image: int
    label: int
    row: int
    weights: np.ndarray | None
    feature: np.ndarray
    background: str


class Bank:
    """Rings of slots, written one pair after the other."""

    def __init__(self, slots, cursor, wraps):
        self.slots, self.cursor, self.wraps = np.array(slots, np.float64), np.array(cursor), np.array(wraps)

    def mean(self, row):
        return sum(self.slots[row]) / len(self.slots[row])

    def write(self, row, vector):
        self.slots[row, self.cursor[row]] = vector
        self.cursor[row] += 1
        if self.cursor[row] == len(self.slots[row]):
            self.cursor[row] = 0
            self.wraps[row] += 1


class Columns:
    """The columns of a stream with its copies written out."""

    def __init__(self, table, label_set):
        self.vectors = np.asarray(table.vectors, np.float64)
        self.gamma, self.beta = float(table.gamma), float(table.beta)
        self.rows = label_set.rows.tolist()
        self.copies = [c for c, m in enumerate(label_set.multiplicity) for _ in range(int(m))]

    def logits(self, patches):
        """(h, w, d) -> (h, w, copies): scores standardised over the columns, patch by patch."""
        scores = np.array([[[patch @ self.vectors[c] for c in self.copies] for patch in line] for line in patches])
        mean, variance = scores.mean(-1, keepdims=True), scores.var(-1, keepdims=True)
        return self.gamma * (scores - mean) / np.sqrt(variance + 1e-5) + self.beta

    def cross_entropy(self, logits, label, left_out=()):
        """-ln softmax of one vector of logits without the columns of the labels left out."""
        dropped = [self.copies.index(other) for other in left_out]
        kept = [z for i, z in enumerate(logits) if i not in dropped]
        return np.log(np.sum(np.exp(kept))) - logits[self.copies.index(label)]


def step(streams, outputs, batch, bank, options, seg_loss_mean, frozen=None):
    """(total, metrics, pairs of every tag stream, bank after the step).

    `streams` are those of the method, `outputs` (patches, class table) of each. `frozen` are the pairs of an earlier
    call, whose pooling weights are then used instead of new ones: attention is a constant of the loss.
    """
    total, metrics, pairs = 0.0, {}, {}
    for stream in streams:
        name, data = stream.name, {k: np.asarray(v) for k, v in batch[stream.name].items()}
        patches, columns = np.asarray(outputs[name][0], np.float64), Columns(outputs[name][1], stream.label_set)
        if not tagged(stream):
            metrics[f"{name}/L_seg"] = segmentation_loss(patches, columns, data, seg_loss_mean)
            total += stream.loss.weight * metrics[f"{name}/L_seg"]
            continue
        tags = [[int(t) for t in row if t >= 0] for row in data["tags"]]
        size = (stream.loss_size, stream.loss_size)
        if frozen:
            pairs[name] = frozen[name]
        else:
            pairs[name] = stream_pairs(patches, columns, tags, bank, options, size)
        l_cls, l_aux = tag_losses(patches, columns, tags, pairs[name], size)
        metrics[f"{name}/L_cls"], metrics[f"{name}/L_aux"] = l_cls, l_aux if stream.loss.lambda_aux else 0.0
        metrics[f"{name}/attended"] = np.mean([pair.weights is not None for pair in pairs[name]])
        total += stream.loss.weight * (stream.loss.lambda_cls * l_cls + stream.loss.lambda_aux * l_aux)
    if any(tagged(stream) and stream.loss.lambda_aux for stream in streams):
        metrics["ready/bank"] = filled(streams, bank, options.warmup)
    after = copy.deepcopy(bank)
    if any(tagged(stream) and stream.loss.lambda_aux for stream in streams):
        for pair in [pair for name in pairs for pair in pairs[name]]:
            after.write(pair.row, pair.feature)
    return total, metrics | {"loss": total}, pairs, after


def filled(streams, bank, warmup):
    """Slots written, up to `warmup` rings, of all classes that some tagged stream knows; as a share."""
    label_sets = [stream.label_set for stream in streams if tagged(stream)]
    rows = {int(row) for of in label_sets for row, many in zip(of.rows, of.multiplicity, strict=True) if many > 0}
    size = bank.slots.shape[1]
    return sum(min(bank.wraps[row] * size + bank.cursor[row], warmup * size) for row in rows) / (
        len(rows) * warmup * size
    )


def tagged(stream):
    return hasattr(stream.loss, "lambda_aux")


def segmentation_loss(patches, columns, data, mean_over):
    losses, ignored = [], 0
    for image, label in enumerate(data["label"]):
        if not data["valid"][image]:
            continue
        logits = upsampled(columns.logits(patches[image]), label.shape)
        for place in np.ndindex(label.shape):
            if label[place] < 0:
                ignored += 1
            else:
                losses.append(columns.cross_entropy(logits[place], label[place]))
    return sum(losses) / (len(losses) + (ignored if mean_over == "all" else 0))


def tag_losses(patches, columns, tags, pairs, size):
    """L_cls and L_aux: sums over pairs / number of pairs, pairs without attention counting as 0."""
    logits = [upsampled(columns.logits(image), size) for image in patches]
    l_cls = l_aux = 0.0
    for pair in pairs:
        others = [t for t in tags[pair.image] if t != pair.label]
        everywhere = logits[pair.image].mean((0, 1))
        l_cls += columns.cross_entropy(everywhere, pair.label, others) / len(pairs)
        if pair.weights is not None:
            attended = (pair.weights[..., None] * logits[pair.image]).mean((0, 1))
            l_aux += columns.cross_entropy(attended, pair.label, others) / len(pairs)
    return l_cls, l_aux


def stream_pairs(patches, columns, tags, bank, options, size):
    pairs = []
    for image, labels in enumerate(tags):
        grid, flat = patches.shape[1:3], patches[image].reshape(-1, patches.shape[-1])
        own = {label: best_patches(flat, columns.vectors, label, labels, options) for label in labels}
        for label in labels:
            row, weights, kind = columns.rows[label], None, ""
            if options.variant == "region":
                weights = region((flat @ columns.vectors[label]).reshape(grid), size)
            elif options.variant == "own_bank" or bank.wraps[row] >= options.warmup:
                # Method 7b: the image's own features of every label, else the bank as the step found it.
                means = own if options.variant == "own_bank" else {t: bank.mean(columns.rows[t]) for t in labels}
                background = [means[t] for t in labels if t != label]
                kind = "other labels"
                if len(labels) == 1:
                    background = mined(flat, columns, label, means[label], bank, options)
                    kind = "mined" if background else "nothing"
                weights = attention(flat, means[label], background, grid, size)
            pairs.append(Pair(image, label, row, weights, own[label], kind))
    return pairs


def best_patches(flat, vectors, label, labels, options):
    """Mean of the k patches that score highest, or that have the highest lead over the image's other labels."""
    scores, k = flat @ vectors[label], options.foreground_topk
    if options.foreground_by == "lead" and len(labels) > 1:
        scores = scores - np.max([flat @ vectors[other] for other in labels if other != label], axis=0)
    order = np.argsort(-scores)
    assert scores[order[k - 1]] - scores[order[k]] > MARGIN
    return flat[order[:k]].mean(0)


def attention(flat, foreground, background, grid, size):
    """sigmoid(norm(S_fg - S_bg)), enlarged before the sigmoid; S_bg = 1 - S_fg without any background."""
    fg = flat @ foreground
    bg = sum(flat @ vector for vector in background) / len(background) if background else 1 - fg
    a = fg - bg
    a = (a - a.mean()) / np.sqrt(a.var() + 1e-5)
    return 1 / (1 + np.exp(-upsampled(a.reshape(grid), size)))


def mined(flat, columns, label, foreground, bank, options):
    """Bank means of the background classes of a single-label image, each as often as it has copies."""
    kept = []
    for c in columns.copies:
        mean = bank.mean(columns.rows[c])
        if c == label or not mean.any():
            continue
        best = np.sort(flat @ columns.vectors[c])[-options.background_topk :].mean()
        maps = [(x - x.mean()) / x.std(ddof=1) for x in (flat @ foreground, flat @ mean)]
        mse = ((maps[0] - maps[1]) ** 2).mean()
        assert abs(best - options.background_threshold) > MARGIN
        assert abs(mse - options.background_mse_threshold) > 10 * MARGIN
        if best > options.background_threshold and mse > options.background_mse_threshold:
            kept.append(mean)
    return kept


def region(scores, size):
    """Method 7a: weights that average over the pixels above mean + std; None if there are none."""
    large = upsampled(scores, size)
    least = large.mean() + large.std(ddof=1)
    assert np.abs(large - least).min() > MARGIN
    inside = large > least
    return inside / inside.mean() if inside.any() else None


def upsampled(maps, size):
    """Bilinear, half-pixel centres, border clamped; over the first two axes."""
    for axis, (old, new) in enumerate(zip(maps.shape[:2], size, strict=True)):
        places = (np.arange(new) + 0.5) * old / new - 0.5
        maps = np.apply_along_axis(lambda line, x=places: np.interp(x, np.arange(len(line)), line), axis, maps)
    return maps
