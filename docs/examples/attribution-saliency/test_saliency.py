"""The whole test file of a plugin."""

from attribution_saliency import AutogradSaliency

from attribution.testing import Check, parametrize_with_checks


@parametrize_with_checks([AutogradSaliency])
def test_conformance(check: Check) -> None:
    """One test per check."""
    check()
