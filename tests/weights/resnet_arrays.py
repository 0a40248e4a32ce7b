"""The arrays of small ResNets under the names of torchvision and of Hugging Face, without either."""

import re

import numpy as np

from tests.weights.pth_files import numbers


def torchvision_arrays(depths=(1, 2, 1, 1), stem=4, width=2):
    """As `torchvision.models.resnet50().state_dict()` has them."""
    found = _with_norm("conv1", "bn1", (stem, 3, 7, 7))
    last = stem
    for layer, depth in enumerate(depths, 1):
        inner = width * 2 ** (layer - 1)
        for i in range(depth):
            block = f"layer{layer}.{i}"
            shapes = (inner, last, 1, 1), (inner, inner, 3, 3), (4 * inner, inner, 1, 1)
            for j, shape in enumerate(shapes, 1):
                found |= _with_norm(f"{block}.conv{j}", f"{block}.bn{j}", shape)
            if not i:
                found |= _with_norm(f"{block}.downsample.0", f"{block}.downsample.1", (4 * inner, last, 1, 1))
            last = 4 * inner
    return found | {"fc.weight": numbers("fc.weight", (10, last)), "fc.bias": numbers("fc.bias", (10,))}


def hugging_face_arrays(arrays):
    """The same as `ResNetForImageClassification` has them."""
    return {_renamed(name): value for name, value in arrays.items()}


def _renamed(name):
    name = re.sub(r"^fc\.", "classifier.1.", name)
    name = re.sub(r"^conv1\.", "embedder.embedder.convolution.", name)
    name = re.sub(r"^bn1\.", "embedder.embedder.normalization.", name)
    name = re.sub(r"^layer(\d)\.(\d)", lambda m: f"encoder.stages.{int(m[1]) - 1}.layers.{m[2]}", name)
    name = re.sub(r"conv(\d)\.", lambda m: f"layer.{int(m[1]) - 1}.convolution.", name)
    name = re.sub(r"bn(\d)\.", lambda m: f"layer.{int(m[1]) - 1}.normalization.", name)
    name = name.replace("downsample.0", "shortcut.convolution").replace("downsample.1", "shortcut.normalization")
    return name if name.startswith("classifier") else f"resnet.{name}"


def _with_norm(convolution, norm, shape):
    found = {f"{convolution}.weight": numbers(f"{convolution}.weight", shape)}
    for kind in ("weight", "bias", "running_mean", "running_var"):
        found[f"{norm}.{kind}"] = numbers(f"{norm}.{kind}", shape[:1]) + np.float32(kind == "running_var")
    return found | {f"{norm}.num_batches_tracked": np.array(7)}
