"""python -m larvseg_jax.oracle: see larvseg_jax/commands/oracle.py."""

from larvseg_jax import cli

if __name__ == "__main__":
    cli.run("oracle")
