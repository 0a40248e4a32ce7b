"""python -m larvseg_jax COMMAND: the console command `larvseg` without an installation."""

from larvseg_jax import cli

if __name__ == "__main__":
    cli.main()
