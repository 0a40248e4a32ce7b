"""The block loop over classes in PyTorch: run by predict_21k.py in a Python that has it, never imported."""

import json
import resource
import sys
import time

import numpy as np
import torch
from torch.nn import functional


def megabytes() -> float:
    """Peak resident memory of this process, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def largest(maps, k):
    """The k largest along the first axis, by k passes: topk() takes ten times as long here. Changes `maps`."""
    values, labels = [], []
    for _ in range(k):
        value, label = maps.max(dim=0)
        maps.scatter_(0, label[None], -torch.inf)
        values.append(value)
        labels.append(label)
    return torch.stack(values), torch.stack(labels)


def best_classes(patches, classes, windows, size, k, block):
    """Running top k over blocks of classes: scores on the grid, windows upsampled and joined, resized, merged."""
    best = torch.full((k, *size), -torch.inf)
    labels = torch.zeros((k, *size), dtype=torch.int64)
    h, w = patches.shape[0] // windows[0], patches.shape[1] // windows[1]
    for start in range(0, len(classes), block):
        scores = torch.einsum("pqd,nd->npq", patches, classes[start : start + block])
        grid = scores.unflatten(2, (windows[1], w)).unflatten(1, (windows[0], h)).permute(1, 3, 0, 2, 4).flatten(0, 1)
        whole = functional.interpolate(grid, scale_factor=16, mode="bilinear", align_corners=False)
        whole = whole.unflatten(0, windows).permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)
        if whole.shape[1:] != tuple(size):
            whole = functional.interpolate(whole[None], size=size, mode="bilinear", align_corners=False)[0]
        values, found = largest(whole, min(k, len(whole)))
        best, place = largest(torch.cat([best, values]), k)
        labels = torch.cat([labels, found + start]).gather(0, place)
    return best, labels


def main() -> None:
    """Reads the case from the file named on the command line, prints one line of JSON."""
    case = np.load(sys.argv[1])
    k, block, windows, size = int(case["k"]), int(sys.argv[2]), tuple(case["windows"].tolist()), case["size"].tolist()
    patches, classes = torch.from_numpy(case["patches"]), torch.from_numpy(np.load(sys.argv[3]))
    weights = megabytes()
    with torch.inference_mode():
        begin = time.perf_counter()
        best, labels = best_classes(patches, classes, windows, tuple(size), k, block)
        seconds = time.perf_counter() - begin
    print(
        json.dumps(
            dict(
                seconds=[seconds],
                mebibytes=megabytes() - weights,
                version=torch.__version__,
                score=float(best[0].double().mean()),
                labels=int(labels[0].sum()),
            )
        )
    )


if __name__ == "__main__":
    main()
