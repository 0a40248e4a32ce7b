"""What tests of the grid share."""

from pathlib import Path

import pytest


@pytest.fixture
def in_the_checkout_without_a_device(monkeypatch):
    """JAX takes most of a GPU's memory once it is asked for a device, and the runs need that."""

    def refuse(*arguments, **options):
        raise AssertionError("the grid itself must not touch a device")

    monkeypatch.chdir(Path(__file__).parents[2])
    for name in ("devices", "device_count", "process_index", "process_count", "default_backend"):
        monkeypatch.setattr(f"jax.{name}", refuse)
