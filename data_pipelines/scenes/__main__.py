"""python -m data_pipelines.scenes: see larvseg_jax/commands/scenes.py."""

from larvseg_jax import cli

if __name__ == "__main__":
    cli.run("scenes")
