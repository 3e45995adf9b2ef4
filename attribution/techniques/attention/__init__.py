"""Techniques that read the attention of transformers."""
