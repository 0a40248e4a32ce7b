"""Optimiser and learning rate (docs/method.md, section 8)."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from larvseg_jax.devices.sharding import path_name
from larvseg_jax.errors import UserError
from larvseg_jax.options import CountOrNone, Least
from larvseg_jax.training.frozen import frozen_parts


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The section `optimizer`; the rate of step t of T is (lr - min) * fall(t/T) + min after the warm-up."""

    name: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 1e-3  # lr
    min_learning_rate: float = 1e-5  # min
    # fall(x) = (1 - x)^power, or (1 + cos(pi x)) / 2, or a tenth at each of `falls`.
    schedule: Literal["polynomial", "cosine", "steps"] = "polynomial"
    power: float = 0.9  # of the polynomial
    falls: tuple[float, ...] = (0.889, 0.963)  # of "steps": shares of the training; those of Mask2Former on COCO
    warmup_steps: CountOrNone = 0  # steps of a linear rise from 0; 0 = none
    momentum: float = 0.9  # of sgd
    weight_decay: float = 0.0  # of adamw, on kernels only
    clip_norm: Annotated[float, Least(0)] = 0.0  # longer gradients, of all that moves, are cut to this length; 0: never
    backbone_rate: Annotated[float, Least(0)] = 1.0  # times the learning rate: that of parameters backbone/
    # Regular expression on parameter paths ("^backbone/"): what it finds does not move, gets no gradient and has no
    # state of the optimizer; "" = nothing. For the last k blocks of the backbone to learn: common.frozen_but_last.
    frozen: str = ""

    def __post_init__(self) -> None:
        if self.name == "sgd" and self.weight_decay:
            raise UserError("optimizer.weight_decay is for adamw: the original trains sgd with 0")
        try:
            re.compile(self.frozen)
        except re.error as error:
            raise UserError(
                f"optimizer.frozen is {self.frozen!r}, no regular expression ({error}): correct it"
            ) from None


def learning_rate(config: OptimizerConfig, total_steps: int) -> optax.Schedule:
    """lr(t) = (lr - min) fall(t/T) + min, after a linear warm-up if one is asked for."""
    steps = max(total_steps - config.warmup_steps, 1)
    fall: optax.Schedule
    if config.schedule == "steps":
        fall = _falling_by_steps(config, steps)
    elif config.schedule == "cosine":
        floor = config.min_learning_rate / config.learning_rate
        fall = optax.cosine_decay_schedule(config.learning_rate, steps, floor)
    else:
        fall = optax.polynomial_schedule(config.learning_rate, config.min_learning_rate, config.power, steps)
    if not config.warmup_steps:
        return fall
    rise = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    return optax.join_schedules([rise, fall], [config.warmup_steps])


def _falling_by_steps(config: OptimizerConfig, steps: int) -> optax.Schedule:
    low, places = config.min_learning_rate, [round(share * steps) for share in config.falls]

    def rate(step: Int[Array, ""] | int) -> Float[Array, ""]:
        tenths = [jnp.where(step < place, 1.0, 0.1) for place in places]
        return (config.learning_rate - low) * functools.reduce(jnp.multiply, tenths, jnp.ones(())) + low

    return rate


def make_optimizer(config: OptimizerConfig, total_steps: int) -> optax.GradientTransformation:
    """SGD with momentum as the original uses it, or AdamW for training from scratch.

    Weight decay acts on kernels only: not on biases, norms, embeddings of classes or positions, gamma.
    """
    schedule = learning_rate(config, total_steps)
    if config.name == "sgd":
        moving = optax.sgd(schedule, momentum=config.momentum)
    else:
        moving = optax.adamw(schedule, weight_decay=config.weight_decay, mask=_is_kernel)
    if config.clip_norm:
        moving = optax.chain(optax.clip_by_global_norm(config.clip_norm), moving)
    if config.backbone_rate != 1:
        moving = optax.chain(moving, optax.masked(optax.scale(config.backbone_rate), _in_backbone))
    if not config.frozen:
        return moving
    # Frozen parameters have no state of the optimizer either.
    return optax.partition(
        {"moving": moving, "frozen": optax.set_to_zero()},
        lambda params: jax.tree.map({True: "frozen", False: "moving"}.get, frozen_parts(config.frozen, params)),
    )


def _in_backbone(params: optax.Params) -> optax.Params:
    return jax.tree_util.tree_map_with_path(lambda path, _: path_name(path).startswith("backbone/"), params)


def _is_kernel(params: optax.Params) -> optax.Params:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)
