"""Whether backends agree, and how much of a difference is rounding."""

from attribution.comparison.compare import Comparison as Comparison
from attribution.comparison.compare import compare as compare
