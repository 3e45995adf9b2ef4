"""Techniques that weigh the maps of a layer."""
