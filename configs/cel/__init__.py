"""CEL's experiments; docs/cel.md."""
