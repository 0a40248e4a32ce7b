"""A first look: photos segmented by a model that comes with the program."""
