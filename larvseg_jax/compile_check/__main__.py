"""python -m larvseg_jax.compile_check: see larvseg_jax/commands/compile_check.py."""

from larvseg_jax import cli

if __name__ == "__main__":
    cli.run("compile_check")
