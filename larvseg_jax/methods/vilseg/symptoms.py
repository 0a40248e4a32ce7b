"""A collapse of ViL-Seg, told from the metrics of a step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from larvseg_jax.methods.vilseg.options import Options

_NEARLY = 0.99  # of ln K, from which on a distribution says nothing
_HARDLY = 0.01  # of ln K, up to which a distribution is one outcome
_SEVERAL = 1.5  # clusters of a picture, on average


def symptoms(metrics: Mapping[str, float], streams: Sequence[str], config: Options) -> list[str]:
    """A line for everything that has collapsed; [] if nothing. `metrics` are named as in the log."""
    most, found = math.log(config.vision.dim), []
    for stream in streams:
        own, mean = (metrics.get(f"{stream}/{name}", math.nan) for name in ("target_entropy", "mean_target_entropy"))
        remedy = "use method.vision.target='centered', or a lower learning rate"
        if own > _NEARLY * most:
            what = f"the targets of L_vision are even over all {config.vision.dim} outcomes: they say nothing"
            found.append(f"{stream}: {what}; {remedy}, or a lower target_temperature")
        elif mean < _HARDLY * most:
            found.append(f"{stream}: the targets of L_vision are the same outcome for all pictures: {remedy}")
        if metrics.get(f"{stream}/clusters_in_use", math.nan) <= 1:
            found.append(
                f"{stream}: all patches are in one of {config.cluster.num} clusters: train longer, raise "
                "method.cluster.weight, or set method.cluster.marginal_weight above 1"
            )
        elif metrics.get(f"{stream}/clusters_in_a_picture", math.nan) < _SEVERAL:
            of_batch = config.cluster.over == "batch"
            remedy = "use method.cluster.over='picture' and cluster.stop_gradient=True" if of_batch else "train longer"
            found.append(
                f"{stream}: the patches of a picture are in one cluster: pictures are told apart, and nothing in them; "
                f"{remedy}, or method.eval.clusters='kmeans'"
            )
    return found
