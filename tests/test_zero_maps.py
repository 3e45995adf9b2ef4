"""A map that is zero everywhere shows nothing; which it is stands in the provenance."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import Activations, FilterVisualization, GradCAM, NonFiniteError, Occlusion, compare, explain
from attribution.running.guards import Guards
from attribution.zero_maps import zero_maps
from tests.conftest import BACKENDS, build, logit, noise

X = noise(2, 3, 17, 23)


class Blind(nn.Module):
    """Class 2 sees nothing of the image, class 3 only counts against it; class 4 is masked as it is told."""

    def __init__(self, mask: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.mask = nn.Conv2d(3, 4, 3), mask

    def forward(self, x: Tensor) -> Any:
        y = self.conv(x).relu().mean((2, 3))
        fixed = torch.full_like(y[:, :1], 0.25)
        masked = torch.full_like(fixed, self.mask)
        return torch.cat([y[:, :2], fixed + 0 * y[:, :1], -y[:, 2:3], masked], dim=1)


@BACKENDS
def test_occlusion_and_grad_cam(backend: str) -> None:
    model = Blind().eval()
    found = explain(model, X, Occlusion(window=9, stride=7), target=logit([[0, 2], [2, 1]]), backend=backend)
    assert found.provenance["zero everywhere"] == "input · image 0 · target 2, input · image 1 · target 2"
    assert found.map[1, 0].abs().max() == 0
    found = explain(model, X, GradCAM(layers=("conv",)), target=[[0, 2], [1, 0]], backend=backend)
    assert found.provenance["zero everywhere"] == "conv · image 0 · target 2"
    found = explain(model, X, GradCAM(layers=("conv",)), target=0, backend=backend)
    assert "zero everywhere" not in found.provenance


@BACKENDS
def test_layers_and_filters(backend: str) -> None:
    model = build("cnn")
    with torch.no_grad():
        for parameter in model.get_submodule("body").parameters():
            parameter[0] = 0
    technique = FilterVisualization(layer="body", channels=(1, 0), steps=1, size=(17, 23))
    assert explain(model, None, technique, backend=backend).provenance["zero everywhere"] == "body · picture 1"
    inputs = torch.cat([X, torch.zeros_like(X[:1])])
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    found = explain(model, inputs, Activations(layers=("0",)), backend=backend)
    assert found.provenance["zero everywhere"] == "0 · image 2"


@pytest.mark.parametrize("late", [False, True])
def test_one_value_that_differs_is_enough_wherever_it_lies(late: bool) -> None:
    guards = Guards(late=late)
    map_, names = (
        torch.zeros(2, 3, 31, 37),
        [["target 0", "target 1", "target 2"], ["target 3", "target 4", "target 5"]],
    )
    for place in range(31 * 37):
        map_[1, 2].view(-1)[place - 1], map_[1, 2].view(-1)[place] = 0, 1e-30
        if place in (0, 1, 100, 31 * 37 - 1):
            assert "target 5" not in zero_maps({"a": map_}, "heatmap", lambda: names, guards)
    assert zero_maps({"a": map_}, "heatmap", lambda: names, guards).endswith("a · image 1 · target 4")
    assert zero_maps({"a": torch.zeros(9, 4, 2, 2)}, "activation", list, guards).endswith("a · image 4 and 4 more")
    assert (
        zero_maps({"a": torch.ones(2, 3), "b": torch.zeros(2)}, "activation", list, guards)
        == "b · image 0, b · image 1"
    )


@BACKENDS
@pytest.mark.parametrize("mask", [-float("inf"), float("inf"), float("nan")])
def test_a_class_that_nobody_asks_about_may_be_anything(mask: float, backend: str) -> None:
    """Of logits; a softmax makes of -inf a probability of zero, and of the others nothing."""
    model, plain = Blind(mask).eval(), Blind().eval()
    for technique in (GradCAM(layers=("conv",)), Occlusion(window=9, stride=7)):
        found = explain(model, X, technique, target=logit([[0, 3], [1, 3]]), backend=backend)
        wanted = explain(plain, X, technique, target=logit([[0, 3], [1, 3]]), backend=backend)
        assert torch.allclose(found.map, wanted.map, rtol=1e-5, atol=1e-6)
        assert all(extra.isfinite().all() for extra in found.extras.values())
        assert ("largest_score" in found.extras) == technique.compares_scores
        assert compare(model, X, technique, target=logit([[0, 3], [1, 3]])).holds
        for target in (4, "all", [[0, 4], [0, 1]]):
            with pytest.raises(NonFiniteError, match="classes asked about"):
                explain(model, X, technique, target=logit(target), backend=backend)
    probability = Occlusion(window=9, stride=7)
    if mask > 0 or mask != mask:
        with pytest.raises(NonFiniteError, match="classes asked about"):
            explain(model, X, probability, target=0, backend=backend)
    else:
        found, far = (explain(m, X, probability, target="all", backend=backend) for m in (model, Blind(-1e4).eval()))
        assert torch.allclose(found.map, far.map, rtol=1e-5, atol=1e-7)
        assert found.map.abs().max() > 1e-4
