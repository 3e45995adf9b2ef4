"""The conformance kit: which checks an attributor is held to, and three ways to run them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from attribution.attributor import Attributor
from attribution.errors import AttributionError, InputError, nearest
from attribution.running.execution import first_line
from attribution.technique import Technique
from attribution.testing.checks import TEMPLATES, Check, CheckFailure, Subject

if TYPE_CHECKING:
    import pytest

AttributorType = type[Attributor[Any]]
Pair = tuple[AttributorType, Technique]
Place = str | torch.device


class ConformanceError(AttributionError, AssertionError):
    """An attributor breaks rules, or keeps one that it was expected to break.

    Attributes:
        outcomes: What did not turn out as expected.
    """

    def __init__(self, who: str, outcomes: "list[Outcome]", total: int) -> None:
        self.outcomes = tuple(outcomes)
        lines = [f"{who}: {len(outcomes)} of {total} checks failed", *(outcome.text for outcome in outcomes)]
        super().__init__("\n".join(lines))


@dataclass(frozen=True)
class Outcome:
    """How one check ended.

    Attributes:
        name: Of the check.
        status: ``"unexpected pass"``: it was expected to fail, so the expectation is out of date.
        text: The failure, or the reason why it was expected.
    """

    name: str
    status: Literal["passed", "failed", "expected failure", "unexpected pass"]
    text: str = ""

    @property
    def good(self) -> bool:
        """Passed, or failed as expected."""
        return self.status in ("passed", "expected failure")


def attributor_checks(
    cls: AttributorType, technique: Technique | None = None, *, device: Place = "cpu"
) -> Iterator[Check]:
    """Every check that applies to an attributor, each a callable with a ``name`` and a ``rule``.

    Args:
        cls: The attributor.
        technique: A question that fits small models with layers ``stem``, ``body`` and ``head``, images of 3 × 17 × 23
            and five classes; ``None``: ``cls.technique_type.example()``.
        device: Where the models and images of the checks lie, e.g. ``"cuda:1"``.

    Raises:
        InputError: ``cls`` is no attributor, its technique needs parameters and has no ``example()``, or torch has no
            such device here.
    """
    subject = _subject(cls, technique, device)
    yield from (Check(template, subject) for template in TEMPLATES if template.applies(subject))


def run_checks(
    cls: AttributorType,
    technique: Technique | None = None,
    *,
    expected_failures: Mapping[str, str] | None = None,
    device: Place = "cpu",
) -> Iterator[Outcome]:
    """Run the checks one after the other and tell how each ended; see `check_attributor`."""
    checks = list(attributor_checks(cls, technique, device=device))
    expected = _known(expected_failures or {}, checks)
    for check in checks:
        reason = expected.get(check.name)
        try:
            check()
        except CheckFailure as failure:
            if reason is None:
                yield Outcome(check.name, "failed", str(failure))
            else:
                yield Outcome(check.name, "expected failure", reason)
        else:
            told = f"{check.name} passes, but was expected to fail: {reason}; remove it from expected_failures"
            yield Outcome(check.name, "passed") if reason is None else Outcome(check.name, "unexpected pass", told)


def check_attributor(
    cls: AttributorType,
    technique: Technique | None = None,
    *,
    expected_failures: Mapping[str, str] | None = None,
    device: Place = "cpu",
) -> list[Outcome]:
    """Hold an attributor to every check that applies to it.

    Args:
        cls: The attributor.
        technique: As for `attributor_checks`.
        expected_failures: Name of a check → why it fails. It then must fail: one that passes is an error too.
        device: As for `attributor_checks`.

    Raises:
        ConformanceError: Some checks failed, or passed against expectation; the text lists all of them.
        InputError: As for `attributor_checks`, or an expected failure is no check that applies.
    """
    outcomes = list(run_checks(cls, technique, expected_failures=expected_failures, device=device))
    if bad := [outcome for outcome in outcomes if not outcome.good]:
        raise ConformanceError(_subject(cls, technique, device).name, bad, len(outcomes))
    return outcomes


def parametrize_with_checks(
    pairs: Iterable[Pair | AttributorType],
    *,
    expected_failures: Mapping[AttributorType, Mapping[str, str]] | None = None,
    device: Place = "cpu",
) -> "pytest.MarkDecorator":
    """One test per attributor and check, for a function with the argument ``check`` that calls it.

    Args:
        pairs: Attributors, each with a technique or alone.
        expected_failures: Attributor → name of a check → why it fails; strict, as in `check_attributor`.
        device: As for `attributor_checks`.
    """
    import pytest

    parameters = []
    for pair in pairs:
        cls, technique = pair if isinstance(pair, tuple) else (pair, None)
        checks = list(attributor_checks(cls, technique, device=device))
        reasons = _known((expected_failures or {}).get(cls, {}), checks)
        for check in checks:
            reason = reasons.get(check.name)
            marks = () if reason is None else pytest.mark.xfail(reason=reason, raises=CheckFailure, strict=True)
            parameters.append(pytest.param(check, id=f"{check.subject.name}-{check.name}", marks=marks))
    return pytest.mark.parametrize("check", parameters)


def _subject(cls: AttributorType, technique: Technique | None, device: Place) -> Subject:
    if not (isinstance(cls, type) and issubclass(cls, Attributor)):
        raise InputError(f"{cls!r} is no attributor; give a subclass of attribution.Attributor")
    if technique is None:
        try:
            technique = cls.technique_type.example()
        except (TypeError, AttributeError) as error:
            raise InputError(
                f"{cls.__qualname__} has no example to check ({error}); give its technique a classmethod example() "
                "that returns an instance for layers stem, body and head"
            ) from error
    if not isinstance(technique, Technique):
        raise InputError(f"technique is {technique!r}; give an instance of {cls.technique_type.__name__}")
    try:
        place = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(f"device is {device!r}, which torch does not have here: {first_line(error)}") from error
    return Subject(cls, technique, place)


def _known(expected: Mapping[str, str], checks: list[Check]) -> Mapping[str, str]:
    names = [check.name for check in checks]
    for name in expected:
        if name not in names:
            raise InputError(
                f"expected_failures names {name!r}, which is no check of this attributor{nearest(name, names)}"
            )
    return expected
