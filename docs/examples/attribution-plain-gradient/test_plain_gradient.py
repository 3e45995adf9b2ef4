"""The whole test file of a plugin: the conformance kit, and a model whose answer is known."""

import torch
from attribution_plain_gradient import AutogradPlainGradient, PlainGradient
from torch import nn

from attribution.testing import Check, parametrize_with_checks


@parametrize_with_checks([AutogradPlainGradient])
def test_conformance(check: Check) -> None:
    """One test per check."""
    check()


def test_a_linear_model() -> None:
    """The gradient of a linear model is its weight, whatever the image."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 5 * 7, 4)).double()
    answer = AutogradPlainGradient(model, PlainGradient()).attribute(torch.rand(2, 3, 5, 7).double(), target=[1, 3])
    expected = model[1].weight[[1, 3]].view(2, 1, 3, 5, 7).abs().amax(dim=2)
    torch.testing.assert_close(answer.map, expected.detach(), rtol=0, atol=1e-12)
