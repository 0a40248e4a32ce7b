"""Models that come with the program, the weights they stand on, and photos to try them with (docs/predict.md)."""
