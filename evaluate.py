"""Evaluates a checkpoint: python evaluate.py --run=runs/quickstart; see larvseg_jax/commands/evaluate.py."""

from larvseg_jax import cli

if __name__ == "__main__":
    cli.run("evaluate")
