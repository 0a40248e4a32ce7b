"""How good a model is on photos with masks: sliding windows, stitched scores, IoU per class."""
