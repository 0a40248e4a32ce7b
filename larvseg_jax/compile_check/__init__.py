"""The train step compiled for accelerators that are not here."""
