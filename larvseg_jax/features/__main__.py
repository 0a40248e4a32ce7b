"""python -m larvseg_jax.features: see larvseg_jax/commands/features.py."""

from larvseg_jax import cli

if __name__ == "__main__":
    cli.run("features")
