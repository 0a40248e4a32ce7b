"""Which classes there are: vocabularies, the class lists of data sets, what they share, what a stream knows."""

from larvseg_jax.vocabulary.vocabulary import IGNORE_LABEL, OTHER, LabelSet, Vocabulary

__all__ = ["IGNORE_LABEL", "OTHER", "LabelSet", "Vocabulary"]
