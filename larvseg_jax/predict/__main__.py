"""python -m larvseg_jax.predict: see larvseg_jax/commands/predict.py."""

from larvseg_jax import cli

if __name__ == "__main__":
    cli.run("predict")
