"""Settings as checkpoints and exported files of version 0.1 hold them, in today's layout."""

from __future__ import annotations

from typing import Any

from larvseg_jax.errors import UserError

_TAG_OPTIONS = ("lambda_cls", "lambda_aux", "always_tags", "tags_from", "max_labels")
_MEMORY_RULE = "^memory/(slots|cursor|wraps|class_mean)$"


def upgraded(settings: Any) -> dict[str, Any]:
    """A config as plain values: an old one under today's names, one of today as it is.

    Until version 0.1 LarvSeg was the only method: its options stood at the top, streams of masks had the options of
    tags, too, and there was one evaluation.

    Raises:
      UserError: they are neither.
    """
    try:
        return _upgraded(settings)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _no_settings(error) from error


def _upgraded(settings: Any) -> dict[str, Any]:
    new = dict(settings)
    if "method" in new:
        return new
    model = dict(new.get("model", {}))
    new["method"] = {
        "name": "larvseg",
        "gamma_init": model.pop("gamma_init", 1.0),
        "seg_loss_mean": new.pop("seg_loss_mean", "all"),
        "ca_classifier": new.pop("ca_classifier", {}),
    }
    new["model"] = model
    rate = new.pop("downsample_rate", 2)
    new["streams"] = {name: _stream(stream, rate) for name, stream in new.get("streams", {}).items()}
    if "eval" in new:
        evaluation = dict(new.pop("eval"))
        evaluation["base_novel"] = evaluation.pop("splits", ())
        evaluation.pop("class_block", None)  # was no option anybody used
        new["evals"] = {"val": evaluation}
    if "mesh" in new:
        rules = [(_MEMORY_RULE if pattern == "^bank/" else pattern, axes) for pattern, axes in new["mesh"]["rules"]]
        new["mesh"] = {**new["mesh"], "rules": rules}
    return new


def _stream(stream: Any, rate: Any) -> dict[str, Any]:
    unused = _TAG_OPTIONS if stream["kind"] == "masks" else ()
    return {name: value for name, value in stream.items() if name not in unused} | {"downsample_rate": rate}


def upgraded_data(data: Any) -> dict[str, Any]:
    """What makes the batch of step i, as a record of version 0.1 has it, under today's names; UserError if none."""
    try:
        return _upgraded_data(data)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _no_settings(error) from error


def _no_settings(error: Exception) -> UserError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:100]
    return UserError(f"these are no settings of a run ({reason}): the file is damaged, or not of larvseg_jax")


def _upgraded_data(data: Any) -> dict[str, Any]:
    if "downsample_rate" not in data:
        return dict(data)
    rate = data["downsample_rate"]
    new = {}
    for name, value in data.items():
        if name.startswith("streams."):
            value = {key: v for key, v in _stream(value, rate).items() if key != "sample_classes"}
        if name != "downsample_rate":
            new[name] = value
    return new
