"""Gradient ascent on an image, and the closed form of a last convolution."""

from attribution_hooks.filter_visualization.attributor import HooksFilterVisualization as HooksFilterVisualization
