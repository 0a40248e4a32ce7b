"""Classes that a trained model is taught from a few photos, without training."""
