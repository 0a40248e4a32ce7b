"""Everything that can happen to a run, done to one on purpose. `python -m tests.drill`."""
