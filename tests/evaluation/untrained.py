"""A network of no training in place of what `larvseg evaluate` loads."""

import jax

from larvseg_jax import evaluate
from larvseg_jax.assemble import make_method
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.trained import Trained


def untrained(config, source, monkeypatch):
    """The network of a config, at step 7; every model that is evaluated from now on is this one."""
    run = from_config(config)
    method = make_method(run, make_mesh(8, 1))
    params, memory = method.init(jax.random.key(0))
    trained = Trained(method, params, memory, run.vocabulary, config.to_dict(), source, 7, {})
    monkeypatch.setattr(evaluate, "load_trained", lambda *_, **__: trained)
    return trained
