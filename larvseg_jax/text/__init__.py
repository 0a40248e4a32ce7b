"""Text as networks read it: tokenizers and prompts."""
