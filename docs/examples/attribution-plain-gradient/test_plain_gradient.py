"""The whole test file of a plugin."""

from attribution_plain_gradient import AutogradGradient

from attribution.testing import Check, parametrize_with_checks


@parametrize_with_checks([AutogradGradient])
def test_conformance(check: Check) -> None:
    """One test per check."""
    check()
