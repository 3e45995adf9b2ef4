"""Every installed attributor, held to the kit that strangers run too."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from attribution import Attributor, registry
from attribution.testing import Check, parametrize_with_checks
from attribution.testing.checks import Subject
from attribution.testing.checks.interrupts import faults

INSTALLED = [registry.get(*pair) for pair in registry.available()]


@parametrize_with_checks(INSTALLED)
def test_conformance(check: Check, device: str) -> None:
    """``--device`` says where."""
    subject = replace(check.subject, device=torch.empty(0, device=device).device)
    replace(check, subject=subject)()


@pytest.mark.slow
@pytest.mark.parametrize("cls", INSTALLED, ids=lambda cls: f"{cls.technique_type.name}.{cls.backend}")
def test_hundreds_of_interrupts_leave_no_trace(cls: type[Attributor[Any]]) -> None:
    """200 of each of two models, 3,200 in all."""
    assert list(faults(Subject(cls, cls.technique_type.example()), count=200, seed=1)) == []
