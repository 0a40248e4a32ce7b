"""One generic training step, its state, and what runs around it; no method is known here by name."""
