"""The properties that every attributor is held to, by subject."""

from attribution.testing.checks import (
    agreement,
    batches,
    callers,
    closed_forms,
    contract,
    footprint,
    layers,
    results,
    targets,
    threads,
)
from attribution.testing.checks.check import Check as Check
from attribution.testing.checks.check import CheckFailure as CheckFailure
from attribution.testing.checks.check import Template as Template
from attribution.testing.checks.subject import Subject as Subject

TEMPLATES: tuple[Template, ...] = (
    *contract.CHECKS,
    *targets.CHECKS,
    *batches.CHECKS,
    *layers.CHECKS,
    *callers.CHECKS,
    *results.CHECKS,
    *agreement.CHECKS,
    *closed_forms.CHECKS,
    *footprint.CHECKS,
    *threads.CHECKS,
)
"""All of them, the cheap ones first."""
