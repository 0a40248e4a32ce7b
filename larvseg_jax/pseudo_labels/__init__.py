"""Pseudo labels: classes of photos that nobody has named, by proposals and an image-text model (docs/pseudo_labels.md)."""
