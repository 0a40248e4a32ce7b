"""Trains a segmenter: python train.py --config=configs/quickstart.py; see larvseg_jax/commands/train.py."""

from larvseg_jax import cli

if __name__ == "__main__":
    cli.run("train")
