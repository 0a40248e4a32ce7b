"""The commands: flags of each, and one call into the room that does the work. The list: larvseg_jax/cli.py."""
