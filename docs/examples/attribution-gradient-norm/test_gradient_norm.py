"""The whole test file of a plugin."""

from attribution_gradient_norm import AutogradGradientNorm

from attribution.testing import Check, parametrize_with_checks


@parametrize_with_checks([AutogradGradientNorm])
def test_conformance(check: Check) -> None:
    """One test per check."""
    check()
