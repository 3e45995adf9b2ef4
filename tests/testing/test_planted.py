"""Tests of the kit: each planted fault is caught, and by the check that is meant for it."""

import random
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from attribution import Attributor
from attribution.testing import FIELDS, CheckFailure, FootprintError, attributor_checks
from tests.testing import planted
from tests.testing.careless import CARELESS, HOARD, HonestOcclusion

NORMAL = "leaves_no_trace[normal-eval]"


@pytest.fixture(autouse=True)
def _undone() -> Iterator[None]:
    """What the planted attributors do to the process ends with the test."""
    benchmark, numbers = torch.backends.cudnn.benchmark, random.getstate()
    with warnings.catch_warnings():
        yield
    torch.backends.cudnn.benchmark = benchmark
    random.setstate(numbers)
    planted.STOP.set()
    while planted.OPEN:
        planted.OPEN.pop().close()
    planted.STOP.clear()
    HOARD.clear()


def failure(cls: type[Attributor[Any]], name: str) -> CheckFailure | None:
    (check,) = (check for check in attributor_checks(cls) if check.name == name)
    try:
        check()
    except CheckFailure as failure:
        return failure
    return None


FOOTPRINTS = [
    *((field, planted.doing(deed), deed.__name__) for field, deed in planted.DEEDS),
    ("inputs", planted.WritesTheInputs, "writes_the_inputs"),
    ("requires_grad", planted.Freezes, "freezes"),
]


@pytest.mark.parametrize(("field", "cls", "deed"), FOOTPRINTS, ids=[deed for _, _, deed in FOOTPRINTS])
def test_every_violated_field_is_caught(field: str, cls: type[Attributor[Any]], deed: str) -> None:
    caught = failure(cls, NORMAL)
    assert caught is not None, f"{NORMAL} does not see that it {deed}"
    assert isinstance(caught.__cause__, FootprintError)
    assert field in {change.field for change in caught.__cause__.changes}
    assert "docs/conventions.md#untouched-model" in str(caught)


def test_every_field_has_a_violator() -> None:
    assert {field for field, _, _ in FOOTPRINTS} == {*FIELDS}
    assert (len(FIELDS), len(STYLES)) == (13, 6)


STYLES: dict[str, tuple[type[Attributor[Any]], str]] = {
    "stored without clone": (planted.StoredWithoutClone, "an_in_place_relu_changes_no_map"),
    "detached only": (planted.DetachedOnly, "activations_are_the_layers_output"),
    "backward hook": (planted.BackwardHook, "an_in_place_relu_changes_no_map"),
    "last call only": (planted.LastCallOnly, "a_reused_module_needs_a_number"),
    "NaN hidden": (planted.HidesNaN, "nan_is_never_hidden"),
    "maps min-max-normalised": (planted.MinMax, "maps_are_not_scaled_for_the_eye"),
}


@pytest.mark.parametrize("style", STYLES)
def test_every_wrong_capture_is_caught(style: str) -> None:
    cls, name = STYLES[style]
    assert failure(cls, name) is not None, f"{name} does not see: {style}"


def test_the_honest_twins_pass_what_catches_the_others() -> None:
    names = {NORMAL, *(name for _, name in STYLES.values())} - {"a_reused_module_needs_a_number"}
    honest: list[type[Attributor[Any]]] = [planted.Honest, planted.HonestActivations]
    for cls in honest:
        failures = [failure(cls, name) for name in sorted(names & {check.name for check in attributor_checks(cls)})]
        assert failures == [None] * len(failures)
        assert len(failures) >= 4


@pytest.mark.parametrize("name", CARELESS)
def test_carelessness_is_caught_by_the_check_that_is_meant_for_it(name: str) -> None:
    cls, words = CARELESS[name]
    caught = failure(cls, name)
    assert caught is not None, f"{name} does not see: {cls.__doc__}"
    assert words in str(caught)


@pytest.mark.parametrize("cls", [planted.Honest, HonestOcclusion])
def test_care_passes_what_catches_the_careless(cls: type[Attributor[Any]]) -> None:
    names = {*CARELESS} & {check.name for check in attributor_checks(cls)}
    assert {name: failure(cls, name) for name in sorted(names)} == dict.fromkeys(sorted(names))
    assert len(names) >= 6


@pytest.mark.parametrize("cls", [cls for cls, _ in CARELESS.values()])
def test_the_careless_are_right_about_plain_models(cls: type[Attributor[Any]]) -> None:
    """So that older checks do not catch them first."""
    names = {check.name for check in attributor_checks(cls)} & {
        "grad_cam_is_cam_on_a_global_mean",
        "occlusion_of_a_linear_model_is_the_covered_sum",
        "batch_size_changes_no_map",
        "an_image_does_not_depend_on_its_neighbours",
    }
    assert [failure(cls, name) for name in sorted(names)] == [None] * 3
