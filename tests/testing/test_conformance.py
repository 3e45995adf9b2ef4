"""Every installed attributor, held to the kit that strangers run too."""

from attribution import registry
from attribution.testing import Check, parametrize_with_checks

INSTALLED = [registry.get(*pair) for pair in registry.available()]


@parametrize_with_checks(INSTALLED)
def test_conformance(check: Check) -> None:
    check()
