"""What is found out about a model is asked again where a constant beside the images may have changed the answer."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attribution import Activations, Execution, GradCAM, LayerError, LayerScore, Occlusion, Saliency, explain
from tests.conftest import BACKENDS, logit, noise

X = noise(3, 2, 6, 6, dtype=torch.float64)


class Mixing(nn.Module):
    """Logits from which a part of their mean over the batch is taken away; how much of it comes with the call."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(2, 3, 3, padding=1)

    def forward(self, x: Tensor, part: Any) -> Tensor:
        part = part[1500] if isinstance(part, np.ndarray) else part
        h = self.body(x).relu().mean((2, 3))
        return h * (1 + float(part) * h.mean(0))  # type: ignore[no-any-return]


def array(part: float) -> "np.ndarray[Any, Any]":
    """Long enough that its repr leaves the number out."""
    found = np.zeros(3001)
    found[1500] = part
    return found


@BACKENDS
@pytest.mark.parametrize("form", [torch.tensor, array, float])
def test_a_constant_that_mixes_rows_is_noticed(form: Any, backend: str) -> None:
    torch.manual_seed(0)
    model, within = Mixing().double().eval(), 1e-5 if backend == "captum" else 1e-12
    technique, execution = Occlusion(window=3, stride=3), Execution(batch_size=7)
    for part in (0.0, 5.0):
        found = explain(model, (X, form(part)), technique, backend=backend, target=logit(1), execution=execution)
        wanted = torch.empty(3, 1, 2, 2, dtype=X.dtype)
        for n, row, column in np.ndindex(3, 2, 2):
            covered = X[n : n + 1].clone()
            covered[..., 3 * row : 3 * row + 3, 3 * column : 3 * column + 3] = 0
            with torch.no_grad():
                wanted[n, 0, row, column] = (model(X[n : n + 1], part) - model(covered, part))[0, 1]
        (raw,) = found.raw.values()
        assert (raw[..., ::3, ::3] - wanted).abs().max() <= within, part
        assert ("rows" in found.provenance) == (part > 0)


class Repeated(nn.Module):
    """One convolution, run as often as the call says."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor, times: Any) -> Tensor:
        for _ in range(int(times.times if isinstance(times, Times) else times)):
            x = self.body(x).tanh()
        return x.mean((2, 3))


class Times:
    """An object of which nobody knows what it holds; every one looks alike."""

    def __init__(self, times: int) -> None:
        self.times = times

    def __repr__(self) -> str:
        return "Times()"


@BACKENDS
@pytest.mark.parametrize("form", [torch.tensor, np.array, int, Times])
@pytest.mark.parametrize(
    ("technique", "target"),
    [(Activations(layers=("body",)), None), (GradCAM(layers=("body",)), 1), (Saliency(), LayerScore("body", 0))],
    ids=["activations", "grad_cam", "layer_score"],
)
def test_how_often_a_layer_runs_is_counted_anew(technique: Any, target: Any, form: Any, backend: str) -> None:
    model = Repeated().double().eval()
    explain(model, (X, form(1)), technique, backend=backend, target=target)
    with pytest.raises(LayerError, match="runs 3 times"):
        explain(model, (X, form(3)), technique, backend=backend, target=target)
