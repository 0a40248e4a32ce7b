"""The segmenter: a vision transformer and a cosine classifier (spec 2 and 3)."""
