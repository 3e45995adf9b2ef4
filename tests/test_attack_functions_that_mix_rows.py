"""A function of the output that takes something over the batch is refused: alone, an example has another score."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from attribution import Saliency, TargetError, explain
from tests.conftest import BACKENDS, noise

X = noise(3, 4, dtype=torch.float64)

MIX: dict[str, Callable[[Tensor], Tensor]] = {
    "the mean of the batch": lambda y: y[:, 1] - y[:, 1].mean(),
    "its largest value": lambda y: y[:, 1] / y.abs().max(),
    "its spread": lambda y: y / y.std(0),
    "a softmax along the wrong axis": lambda y: y.softmax(0)[:, 1],
}

OWN: dict[str, Callable[[Tensor], Tensor]] = {
    "its own mean": lambda y: y[:, 1] - y.mean(1),
    "its own largest value": lambda y: y / y.abs().amax(1, keepdim=True),
    "a softmax": lambda y: y.softmax(1)[:, 1],
}


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(4, 3).double().eval()


@BACKENDS
@pytest.mark.parametrize("function", MIX.values(), ids=MIX)
def test_what_is_taken_over_the_batch_is_refused(function: Callable[[Tensor], Tensor], backend: str) -> None:
    with pytest.raises(TargetError, match="mixes them"):
        explain(linear(), X, Saliency(), backend=backend, target=function)


@pytest.mark.parametrize("function", OWN.values(), ids=OWN)
def test_what_is_taken_over_a_row_is_explained(function: Callable[[Tensor], Tensor]) -> None:
    model = linear()
    scores = explain(model, X, Saliency(), target=function).scores
    assert scores is not None
    with torch.no_grad():
        alone = torch.cat([function(model(x)).reshape(1, -1) for x in X.split(1)])
    assert (scores - alone).abs().max() <= 1e-12
