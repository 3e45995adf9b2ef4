"""A small model that tests give a state of its own, and what is asked of it."""

import copy

import torch
from torch import Tensor, nn

from attribution import Attribution, Occlusion
from attribution import explain as explained
from tests.conftest import logit, noise

X = noise(2, 3, 6, 7)
QUESTION = Occlusion(window=3, stride=3)


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        source = torch.Generator().manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 5)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=source))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.after(self.conv(x)).mean((2, 3)))
        return logits

    def after(self, x: Tensor) -> Tensor:
        return x


def ask(model: nn.Module) -> Attribution:
    return explained(model, X, QUESTION, target=logit(0))


def scores(model: nn.Module) -> Tensor:
    found = ask(model).scores
    assert found is not None
    return found[:, 0]


def exact(model: nn.Module) -> Tensor:
    with torch.no_grad():
        logits: Tensor = copy.deepcopy(model).eval()(X)
    return logits[:, 0]
