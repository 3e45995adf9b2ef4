"""Scores of explanations: how much of what a map marks the model rests on, against controls and with intervals."""

from attribution.metrics.curves import Curves as Curves
from attribution.metrics.curves import removal_curves as removal_curves
