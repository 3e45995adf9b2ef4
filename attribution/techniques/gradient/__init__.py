"""Techniques that take gradients of the score with respect to the inputs."""
