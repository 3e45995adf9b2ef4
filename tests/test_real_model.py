"""The bundled SqueezeNet on a photo of a cup of coffee."""

import pytest
import torch
from torch import Tensor

from attribution import Activations, FilterVisualization, GradCAM, Occlusion, Technique, compare, explain, zoo
from attribution.agreement import table
from attribution.zoo import LoadedModel
from tests.conftest import logit

ESPRESSO = 967


@pytest.fixture(scope="module")
def bundled() -> LoadedModel:
    return zoo.load("bundled:squeezenet1_1")


@pytest.fixture(scope="module")
def coffee(bundled: LoadedModel) -> Tensor:
    return bundled.inputs(zoo.sample_photo("coffee"))


def test_coffee_is_espresso(bundled: LoadedModel, coffee: Tensor) -> None:
    assert coffee.shape == (1, 3, 224, 224)
    label, index, probability = bundled.top(bundled.model(coffee).detach())[0][0]
    assert (label, index) == ("espresso", ESPRESSO)
    assert probability > 0.2


TECHNIQUES: dict[str, tuple[Technique, int]] = {
    "activations": (Activations(), 3),
    "grad_cam": (GradCAM(), 1),
    "grad_cam-many": (GradCAM(layers=("features.3", "features.7", "features.12")), 3),
    "occlusion": (Occlusion(window=56, stride=56), 1),
    "occlusion-logit-drop": (Occlusion(window=80, stride=70, border="drop"), 1),
    "filter_visualization": (
        FilterVisualization(layer="features.6.expand3x3", channels=(0, 4), steps=5, size=64),
        4,
    ),
}


@pytest.mark.parametrize("name", TECHNIQUES)
def test_both_backends_agree(bundled: LoadedModel, coffee: Tensor, name: str) -> None:
    technique, count = TECHNIQUES[name]
    inputs = coffee if technique.needs_inputs else None
    target = logit(ESPRESSO) if name == "occlusion-logit-drop" else ESPRESSO
    found = compare(bundled.model, inputs, technique, target=target if technique.needs_target else None)
    (pairs,) = found.agreements.values()
    assert len(pairs) == count
    assert not any(pair.degenerate for pair in pairs)
    assert found.holds, table(pairs)


def test_the_cup_lights_up(bundled: LoadedModel, coffee: Tensor) -> None:
    """The cup is in the middle; the corners are table."""
    for technique in (GradCAM(), Occlusion(window=56, stride=28)):
        result = explain(bundled.model, coffee, technique, target=None)
        assert result.target is not None
        assert result.target.tolist() == [[ESPRESSO]]
        map_ = result.map[0, 0]
        middle = map_[56:168, 56:168].mean()
        corners = torch.stack([map_[:40, :40], map_[:40, -40:], map_[-40:, :40], map_[-40:, -40:]]).mean()
        assert middle > 1.5 * corners.abs()


def test_the_occlusion_of_everything_is_the_drop_to_the_mean_colour(bundled: LoadedModel, coffee: Tensor) -> None:
    result = explain(bundled.model, coffee, Occlusion(window=224, stride=1), target=logit(ESPRESSO))
    with torch.no_grad():
        drop = (bundled.model(coffee) - bundled.model(torch.zeros_like(coffee)))[0, ESPRESSO]
    assert torch.allclose(result.map, drop.expand(1, 1, 224, 224), rtol=1e-5)
