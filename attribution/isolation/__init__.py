"""Runs a copy that shares the weights of a model, or the model itself, restored on every exit."""
