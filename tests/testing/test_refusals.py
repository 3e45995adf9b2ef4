"""Mistakes are refused in the same words whether or not Python runs assertions, and never by one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from attribution import errors
from tests.cases import PAIRS
from tests.testing.refusals import PLANTED, refusals

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def here() -> dict[str, list[str]]:
    return refusals()


@pytest.fixture(scope="module")
def without_assertions() -> dict[str, list[str]]:
    done = subprocess.run(
        [sys.executable, "-O", "-m", "tests.testing.refusals"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert not found["assertions"]
    refused: dict[str, list[str]] = found["refusals"]
    return refused


def test_every_mistake_of_every_attributor_is_a_typed_error(here: dict[str, list[str]]) -> None:
    kinds = set()
    for mistake, error in here.items():
        if mistake == PLANTED:
            continue
        assert error, f"{mistake}: accepted"
        module, _, kind = error[0].rpartition(".")
        assert module == "attribution.errors", f"{mistake}: {error}"
        assert issubclass(getattr(errors, kind), errors.AttributionError)
        assert 20 < len(error[1]) < 500, f"{mistake}: {error}"
        assert error[1].count("\n") <= 1, f"{mistake}: {error}"
        kinds.add(kind)
    assert kinds == {"InputError", "LayerError", "ModelError", "NonFiniteError", "TargetError"}
    assert {mistake.partition(":")[0] for mistake in here} - {"occlusion.asserting"} == {*map(".".join, PAIRS)}


def test_they_are_the_same_without_assertions(
    here: dict[str, list[str]], without_assertions: dict[str, list[str]]
) -> None:
    differing = [mistake for mistake in here if here[mistake] != without_assertions[mistake]]
    assert here.keys() == without_assertions.keys()
    assert differing == [PLANTED], "what an assertion refuses is accepted without"
    assert here[PLANTED] == ["builtins.AssertionError", "four channels are wanted"]
    assert without_assertions[PLANTED] == []
