"""The kit itself: what it yields, how it fails, and that it needs no pytest."""

import subprocess
import sys
from pathlib import Path

import pytest

from attribution import GradCAM, InputError, registry
from attribution.testing import ConformanceError, attributor_checks, check_attributor, parametrize_with_checks
from attribution.testing.checks import TEMPLATES
from attribution.testing.conformance import run_checks
from tests.docs.test_pages import anchors
from tests.testing.planted import Honest, MinMax

ROOT = Path(__file__).parents[2]
RAW = "maps_are_not_scaled_for_the_eye"
WHY = "scaled on purpose"


def few(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Only these checks, so that a test of the machinery takes no time."""
    kept = tuple(template for template in TEMPLATES if template.name in names)
    assert len(kept) == len(names)
    monkeypatch.setattr("attribution.testing.conformance.TEMPLATES", kept)


def test_there_are_enough_checks_with_names_of_their_own() -> None:
    names = [template.name for template in TEMPLATES]
    assert len(set(names)) == len(names) >= 40
    for pair in registry.available():
        assert len(list(attributor_checks(registry.get(*pair)))) >= 40, pair


def test_every_check_names_a_rule_that_exists() -> None:
    known = anchors(ROOT / "docs/conventions.md")
    for check in {c.name: c for pair in registry.available() for c in attributor_checks(registry.get(*pair))}.values():
        page, _, anchor = check.rule.partition("#")
        assert (page, anchor in known) == ("docs/conventions.md", True), check


def test_the_page_lists_every_check_with_its_rule() -> None:
    page = (ROOT / "docs/conformance.md").read_text(encoding="utf-8")
    for template in TEMPLATES:
        name, bracket, cases = template.name.partition("[")
        (row,) = (line for line in page.splitlines() if line.startswith(f"| `{name}{bracket and '[…]'}`"))
        assert f"[{template.rule}](" in row
        assert cases.removesuffix("]") in row


def test_every_check_applies_to_something() -> None:
    used = {check.name for pair in registry.available() for check in attributor_checks(registry.get(*pair))}
    assert {template.name for template in TEMPLATES} - used == set()


def test_a_failure_says_who_what_and_which_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch, RAW, "target_changes_the_map")
    with pytest.raises(ConformanceError) as caught:
        check_attributor(MinMax, GradCAM(layers=("body",)))
    assert str(caught.value).splitlines() == [
        "grad_cam.planted: 1 of 2 checks failed",
        f"grad_cam.planted: {RAW}: found every plane of map 'body' with the largest value 1; expected raw values in "
        "the technique's unit. Rule: docs/conventions.md#maps-raw-values",
    ]


def test_an_expected_failure_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch, RAW, "target_changes_the_map")
    outcomes = check_attributor(MinMax, expected_failures={RAW: WHY})
    assert [(o.name, o.status, o.text) for o in outcomes if o.status != "passed"] == [(RAW, "expected failure", WHY)]


def test_an_expected_failure_that_passes_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch, RAW)
    with pytest.raises(ConformanceError, match=f"{RAW} passes, but was expected to fail: {WHY}; remove it"):
        check_attributor(Honest, expected_failures={RAW: WHY})
    (outcome,) = run_checks(Honest, expected_failures={RAW: WHY})
    assert (outcome.status, outcome.good) == ("unexpected pass", False)


def test_an_expected_failure_must_be_a_check() -> None:
    with pytest.raises(InputError, match=f"nearest: '{RAW}'"):
        check_attributor(Honest, expected_failures={RAW[:-1]: WHY})


def test_what_is_no_attributor_is_refused() -> None:
    with pytest.raises(InputError, match=r"give a subclass of attribution\.Attributor"):
        check_attributor(GradCAM)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="give an instance of GradCAM"):
        check_attributor(Honest, "grad_cam")  # type: ignore[arg-type]


def test_parameters_for_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch, RAW, "target_changes_the_map")
    mark = parametrize_with_checks(
        [(MinMax, GradCAM(layers=("stem",))), Honest], expected_failures={MinMax: {RAW: WHY}}
    )
    parameters = mark.args[1]
    assert [parameter.id for parameter in parameters] == [
        f"grad_cam.planted-{n}" for n in (RAW, "target_changes_the_map")
    ] * 2
    marks = [[(m.name, m.kwargs["strict"], m.kwargs["reason"]) for m in parameter.marks] for parameter in parameters]
    assert marks == [[("xfail", True, WHY)], [], [], []]


def test_no_pytest_is_needed() -> None:
    code = f"""
import sys
sys.modules["pytest"] = None
from attribution import registry
from attribution.testing import attributor_checks, check_attributor
checks = list(attributor_checks(registry.get("grad_cam", "hooks")))
next(check for check in checks if check.name == "{RAW}")()
print(len(checks) >= 40)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["True"]), done.stderr
