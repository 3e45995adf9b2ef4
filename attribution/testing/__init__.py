"""Helpers for testing attributors; shipped, so that plugin authors can use them."""

from attribution.testing.models import calibrated as calibrated
from attribution.testing.models import small_cnn as small_cnn
from attribution.testing.models import small_depthwise as small_depthwise
from attribution.testing.models import small_residual as small_residual
