"""Weights in files: checkpoints of ours, safetensors, AugReg, PyTorch files of the original."""
