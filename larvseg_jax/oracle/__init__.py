"""The oracle test of the paper's Table 1."""
