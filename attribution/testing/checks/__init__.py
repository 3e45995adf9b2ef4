"""The properties that every attributor is held to, by subject."""

from attribution.testing.checks import (
    agreement,
    batches,
    callers,
    closed_forms,
    contract,
    copies,
    covered,
    footprint,
    interrupts,
    layers,
    results,
    rows,
    several,
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
    *rows.CHECKS,
    *several.CHECKS,
    *layers.CHECKS,
    *callers.CHECKS,
    *results.CHECKS,
    *agreement.CHECKS,
    *closed_forms.CHECKS,
    *covered.CHECKS,
    *copies.CHECKS,
    *footprint.CHECKS,
    *interrupts.CHECKS,
    *threads.CHECKS,
)
"""All of them, the cheap ones first."""
