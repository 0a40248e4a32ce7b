"""python -m larvseg_jax.doctor: see larvseg_jax/commands/doctor.py."""

from larvseg_jax import cli

if __name__ == "__main__":
    cli.run("doctor")
