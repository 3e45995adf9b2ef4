"""Every installed attributor, held to the kit that strangers run too."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from attribution import Attributor, registry
from attribution.testing import Check, parametrize_with_checks
from attribution.testing.checks import Subject
from attribution.testing.checks.interrupts import faults
from tests.draw import some

INSTALLED = [registry.get(*pair) for pair in registry.available()]
WHOLE = ("activations.hooks", "filter_visualization.hooks", "grad_cam.hooks", "occlusion.hooks")
CHECKS = parametrize_with_checks(INSTALLED).args[1]
ONLY = {each.values[0].name: str(each.id) for each in reversed(CHECKS)}
EVERY_RUN = some(CHECKS, 0.1, whole=(*WHOLE, *ONLY.values()))
"""Four attributors whole, a tenth of every other's checks, and each check at least once."""


def test_what_every_run_takes_has_each_check_and_each_attributor() -> None:
    taken = [each.values[0] for each in EVERY_RUN if pytest.mark.slow not in each.marks]
    assert {check.name for check in taken} == {each.values[0].name for each in CHECKS}
    assert {check.subject.name for check in taken} == {each.values[0].subject.name for each in CHECKS}
    assert len(taken) < len(CHECKS) / 2


@pytest.mark.parametrize("check", EVERY_RUN)
def test_conformance(check: Check, device: str) -> None:
    """``--device`` says where."""
    subject = replace(check.subject, device=torch.empty(0, device=device).device)
    replace(check, subject=subject)()


@pytest.mark.slow
@pytest.mark.parametrize("cls", INSTALLED, ids=lambda cls: f"{cls.technique_type.name}.{cls.backend}")
def test_hundreds_of_interrupts_leave_no_trace(cls: type[Attributor[Any]]) -> None:
    """200 of each of two models, 3,200 in all."""
    assert list(faults(Subject(cls, cls.technique_type.example()), count=200, seed=1)) == []
