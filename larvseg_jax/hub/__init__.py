"""Models in Hugging Face's layout: a folder of config.json, model.safetensors and README.md (docs/exports.md)."""
