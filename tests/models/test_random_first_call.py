"""A model that draws random numbers in eval mode draws the same in the first call as in later ones."""

import torch
from torch import Tensor, nn

from attribution import Activations, GradCAM, Technique, explain
from tests.cases import OF_INPUTS, by_backends, placed
from tests.conftest import logit, noise

TECHNIQUES = [
    Activations(),
    GradCAM(),
    *(placed(each, {"stem": "conv", "body": "relu"}) for each in OF_INPUTS.values()),
]


class Draws(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.conv(x))
        return self.head((y * torch.rand(())).mean((2, 3)))  # type: ignore[no-any-return]


@by_backends("technique", TECHNIQUES)
def test_the_first_call_draws_what_later_ones_draw(technique: Technique, backend: str) -> None:
    model, x = Draws().eval(), noise(1, 3, 13, 17)
    target = logit(1) if technique.needs_target else None
    found = []
    for _ in range(3):
        torch.manual_seed(0)
        found.append(explain(model, x, technique, target=target, backend=backend))
    for later in found[1:]:
        for name, map_ in later.maps.items():
            assert torch.equal(map_, found[0].maps[name])
