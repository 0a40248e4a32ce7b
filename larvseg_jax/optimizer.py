"""Optimiser and learning rate (docs/method.md, section 8)."""

from __future__ import annotations

import dataclasses

import jax
import optax

from larvseg_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """See `configs/common.py`."""

    name: str
    learning_rate: float
    min_learning_rate: float
    power: float
    warmup_steps: int
    momentum: float
    weight_decay: float


def learning_rate(config: OptimizerConfig, total_steps: int) -> optax.Schedule:
    """lr(t) = (lr - min) (1 - t/T)^power + min, after a linear warm-up if one is asked for."""
    poly = optax.polynomial_schedule(
        config.learning_rate,
        config.min_learning_rate,
        config.power,
        max(total_steps - config.warmup_steps, 1),
    )
    if not config.warmup_steps:
        return poly
    rise = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    return optax.join_schedules([rise, poly], [config.warmup_steps])


def make_optimizer(config: OptimizerConfig, total_steps: int) -> optax.GradientTransformation:
    """SGD with momentum as the original uses it, or AdamW for training from scratch.

    Weight decay acts on kernels only: not on biases, norms, embeddings of classes or positions, gamma.
    """
    schedule = learning_rate(config, total_steps)
    if config.name == "sgd":
        if config.weight_decay:
            raise UserError("optimizer.weight_decay is for adamw: the original trains sgd with 0")
        return optax.sgd(schedule, momentum=config.momentum)
    if config.name == "adamw":
        return optax.adamw(schedule, weight_decay=config.weight_decay, mask=_is_kernel)
    raise UserError(f"optimizer.name is {config.name!r}: use 'sgd' or 'adamw'")


def _is_kernel(params: optax.Params) -> optax.Params:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)
