"""A map in input space is called "input" where one input is explained, whoever computes it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import Inputs, InputXGradient, IntegratedGradients, Occlusion, Saliency, Technique, explain

IMAGE, AGE = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(0)), torch.ones(2, 4)


class Aged(nn.Module):
    """An image and metadata."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 4, 3), nn.Linear(8, 3)

    def forward(self, image: Tensor, age: Tensor) -> Tensor:
        return self.head(torch.cat([self.body(image).relu().mean((2, 3)), age], 1))  # type: ignore[no-any-return]


GIVEN = {
    "one of two, by position": (Inputs.of((IMAGE, AGE), axes={"1": "n"}), ["input"]),
    "one of two, by keyword": (Inputs.of({"image": IMAGE, "age": AGE}, axes={"age": "n"}), ["input"]),
    "both, by position": ((IMAGE, AGE), ["input.0", "input.1"]),
    "both, by keyword": ({"image": IMAGE, "age": AGE}, ["input.image", "input.age"]),
}
TECHNIQUES = [Saliency(), InputXGradient(), IntegratedGradients(steps=2), Occlusion(window=2, stride=2)]


@pytest.mark.parametrize("backend", ["hooks", "captum"])
@pytest.mark.parametrize("technique", TECHNIQUES, ids=lambda technique: technique.name)
@pytest.mark.parametrize(("given", "keys"), GIVEN.values(), ids=GIVEN)
def test_maps_are_called_alike(given: Any, keys: list[str], technique: Technique, backend: str) -> None:
    result = explain(Aged(), given, technique, target=1, backend=backend)
    assert list(result.maps) == list(result.raw) == keys
    assert result.maps[keys[0]].shape[-2:] == (9, 9)


@pytest.mark.parametrize("technique", TECHNIQUES, ids=lambda technique: technique.name)
def test_a_single_keyword_is_the_only_input(technique: Technique) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(196, 3))
    assert list(explain(model, {"input": IMAGE}, technique, target=1).maps) == ["input"]
