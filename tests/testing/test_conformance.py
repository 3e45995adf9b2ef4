"""Every installed attributor, held to the kit that strangers run too."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch

from attribution import Attributor, registry
from attribution.testing import Check, parametrize_with_checks
from attribution.testing.checks import Subject
from attribution.testing.checks.agreement import others
from attribution.testing.checks.interrupts import faults
from tests.draw import some

INSTALLED = [registry.get(*pair) for pair in registry.available()]
WHOLE = ("activations.hooks", "filter_visualization.hooks", "grad_cam.hooks", "occlusion.hooks")
CHECKS = parametrize_with_checks(INSTALLED).args[1]
ONLY = {each.values[0].name: str(each.id) for each in reversed(CHECKS)}
"""Check → one attributor that it is asked of; of those taken whole where it is asked of one of them."""
ONLY |= {each.values[0].name: str(each.id) for each in reversed(CHECKS) if str(each.id).startswith(WHOLE)}
ELSEWHERE = ("agrees_with_other_backends[cnn-float32]", "agrees_with_other_backends[residual-float64]")
"""Asked of every technique with ``-m device`` too, on whatever device ``--device`` names."""

ALONE = ("batch_size_changes_no_map", "float64_agrees_with_float32")
"""Asked there of techniques that one backend has."""


def placed(each: Any) -> Any:
    """The parameter of a check, marked where ``-m device`` asks it: one attributor of a pair serves."""
    check: Check = each.values[0]
    names = ELSEWHERE if others(check.subject) else ALONE
    if check.name not in names or check.subject.cls.backend != "hooks":
        return each
    return pytest.param(check, id=each.id, marks=[*each.marks, pytest.mark.device])


EVERY_RUN = [placed(each) for each in some(CHECKS, 0.07, whole=(*WHOLE, *ONLY.values()))]
"""Four attributors whole, a fourteenth of every other's checks, and each check at least once."""


def test_what_every_run_takes_has_each_check_and_each_attributor() -> None:
    taken = [each.values[0] for each in EVERY_RUN if pytest.mark.slow not in each.marks]
    assert {check.name for check in taken} == {each.values[0].name for each in CHECKS}
    assert {check.subject.name for check in taken} == {each.values[0].subject.name for each in CHECKS}
    assert len(taken) < len(CHECKS) / 2


def test_every_technique_is_compared_elsewhere() -> None:
    asked = Counter(each.values[0].subject.technique.name for each in EVERY_RUN if pytest.mark.device in each.marks)
    assert asked == Counter({name: 2 for name, _ in registry.available()})


@pytest.mark.parametrize("check", EVERY_RUN)
def test_conformance(check: Check, device: str) -> None:
    """``--device`` says where."""
    subject = replace(check.subject, device=torch.empty(0, device=device).device)
    replace(check, subject=subject)()


@pytest.mark.slow
@pytest.mark.parametrize("cls", INSTALLED, ids=lambda cls: f"{cls.technique_type.name}.{cls.backend}")
def test_hundreds_of_interrupts_leave_no_trace(cls: type[Attributor[Any]]) -> None:
    """200 of each of two models."""
    assert list(faults(Subject(cls, cls.technique_type.example()), count=200, seed=1)) == []
