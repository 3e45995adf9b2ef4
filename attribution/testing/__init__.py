"""Helpers for testing attributors; shipped, so that plugin authors can use them."""

from attribution.testing.checks import Check as Check
from attribution.testing.checks import CheckFailure as CheckFailure
from attribution.testing.conformance import ConformanceError as ConformanceError
from attribution.testing.conformance import Outcome as Outcome
from attribution.testing.conformance import attributor_checks as attributor_checks
from attribution.testing.conformance import check_attributor as check_attributor
from attribution.testing.conformance import parametrize_with_checks as parametrize_with_checks
from attribution.testing.conformance import run_checks as run_checks
from attribution.testing.footprint.fields import FIELDS as FIELDS
from attribution.testing.footprint.guard import FootprintError as FootprintError
from attribution.testing.footprint.guard import guard as guard
from attribution.testing.footprint.snapshot import Change as Change
from attribution.testing.footprint.snapshot import Snapshot as Snapshot
from attribution.testing.models.awkward import AWKWARD as AWKWARD
from attribution.testing.models.awkward import Planned as Planned
from attribution.testing.models.awkward import Watch as Watch
from attribution.testing.models.awkward import awkward as awkward
from attribution.testing.models.small import calibrated as calibrated
from attribution.testing.models.small import small_cnn as small_cnn
from attribution.testing.models.small import small_depthwise as small_depthwise
from attribution.testing.models.small import small_residual as small_residual
