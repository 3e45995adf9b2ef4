"""Grad-CAM's default on published architectures: a reviewed table over four libraries."""

import random
import warnings

import pytest
import torch

from attribution.layers import activation_layers, grad_cam_default, grad_cam_layer, survey
from tests.layers.architectures import Case, bare, cases, timm_size


def drawn() -> list[tuple[str, Case]]:
    """Two of each library; the draw is seeded."""
    draw = random.Random(12)
    return [(library, case) for library, found in cases().items() for case in draw.sample(found, 2)]


def check(case: Case) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's constructors
        model = bare(case.build, case.device)
        size = case.size or timm_size(case.name)
        inputs = torch.zeros(1, 3, size, size, device=case.device)
        stops = {stop.name: stop for stop in survey(model, inputs)}
    if isinstance(case.expected, tuple):
        assert grad_cam_default(model, inputs) == case.expected
        return
    assert grad_cam_layer(model, inputs) == case.expected
    end = stops[case.expected]
    assert end.shape is not None
    assert end.calls == 1
    of_each = activation_layers(model, inputs)
    assert of_each, "no activations"
    for name in of_each:
        stop = stops[name]
        assert stop.shape is not None
        assert len(stop.shape) == 4
        assert stop.shape[2] >= end.shape[2] // 2, f"{name} is coarser than the last block and the pool after it"
        later = [other for other in stops.values() if end.order < other.order <= stop.order and other.parametrised]
        assert not later, f"{name} comes after the trunk"


@pytest.mark.parametrize(("library", "case"), drawn(), ids=lambda value: getattr(value, "name", value))
def test_some_families(library: str, case: Case) -> None:
    check(case)


@pytest.mark.slow
@pytest.mark.parametrize("library", ["torchvision", "timm", "transformers", "segmentation_models_pytorch"])
def test_all_families(library: str) -> None:
    wrong = []
    for case in cases()[library]:
        try:
            check(case)
        except Exception as error:
            wrong.append(f"{case.name}: {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)
