"""Gradients of the score with respect to the inputs, summed over points."""
