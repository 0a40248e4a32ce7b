"""The segmenter: a vision transformer and a cosine classifier (docs/method.md, sections 2 and 3)."""
