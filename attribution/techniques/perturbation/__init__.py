"""Techniques that cover parts of an input."""
