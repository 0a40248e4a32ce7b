"""A trained model applied to photos of your own."""
