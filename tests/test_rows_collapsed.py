"""A model whose output has one row however many examples it is shown: one example can still be explained."""

import pytest
import torch
from torch import Tensor, nn

from attribution import (
    Inputs,
    InputXGradient,
    IntegratedGradients,
    ModelError,
    Occlusion,
    SmoothGrad,
    ValueScore,
    explain,
)
from attribution.technique import Technique
from tests.conftest import BACKENDS


class Total(nn.Module):
    """A number of the whole batch, as (1, 1)."""

    def forward(self, x: Tensor) -> Tensor:
        return (x.pow(3).sum() + x[:, 0].prod() * 2).reshape(1, 1)


X = torch.rand(1, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 0.5


def gradient(x: Tensor) -> Tensor:
    return 3 * x**2 + 2 * torch.eye(5, dtype=x.dtype)[0]


QUESTIONS: dict[str, tuple[Technique, Tensor]] = {
    "product": (InputXGradient(), X * gradient(X)),
    "path": (IntegratedGradients(steps=8), X**3 + 2 * X * torch.eye(5, dtype=torch.float64)[0]),
    "windows": (
        Occlusion(window=1, stride=1),
        X**3 + 2 * X * torch.eye(5, dtype=torch.float64)[0],
    ),
}


@BACKENDS
@pytest.mark.parametrize("name", QUESTIONS)
def test_one_example(name: str, backend: str) -> None:
    technique, wanted = QUESTIONS[name]
    found = explain(Total(), X, technique, backend=backend, target=ValueScore())
    within = (
        1e-6 if (name, backend) in (("windows", "captum"), ("path", "captum")) else 1e-12
    )  # Captum folds in float32
    assert (found.map[:, 0] - wanted).abs().max() <= within * wanted.abs().max()
    several = 3 * wanted  # what three points in one forward would give
    assert (found.map[:, 0] - several).abs().max() > 1e-3


@BACKENDS
def test_noisy_copies(backend: str) -> None:
    technique = SmoothGrad(samples=4, noise=0.2)
    noise = [draw["input"] for draw in technique.draws(Inputs.of(X))]
    wanted = torch.stack([gradient(X + each) for each in noise]).mean(0)
    found = explain(Total(), X, technique, backend=backend, target=ValueScore())
    assert torch.allclose(found.map[:, 0], wanted, rtol=1e-12)
    assert str(found.provenance["rows"]).startswith("one by one: the model gives one row")


@BACKENDS
def test_several_examples_are_refused_as_before(backend: str) -> None:
    for _ in range(2):  # what was found out about one example says nothing of two
        explain(model := Total(), X, IntegratedGradients(steps=4), backend=backend, target=ValueScore())
        with pytest.raises(ModelError, match=r"\(1, 1\) for"):
            explain(model, torch.cat([X, X]), IntegratedGradients(steps=4), backend=backend, target=ValueScore())
