"""ViL-Seg's experiments; docs/vilseg.md."""
