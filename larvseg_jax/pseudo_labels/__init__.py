"""Pseudo labels: classes that nobody has named in a photo, by proposals and a CLIP (docs/pseudo_labels.md)."""
