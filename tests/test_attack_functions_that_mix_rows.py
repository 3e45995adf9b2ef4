"""A function of the output that takes something over the batch is refused: alone, an example has another score."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from attribution import Occlusion, Saliency, TargetError, explain
from tests.conftest import BACKENDS, noise

X = noise(3, 4, dtype=torch.float64)
REFERENCE = noise(1, 3, dtype=torch.float64, seed=1)

MIX: dict[str, Callable[[Tensor], Tensor]] = {
    "the mean of the batch": lambda y: y[:, 1] - y[:, 1].mean(),
    "its largest value": lambda y: y[:, 1] / y.abs().max(),
    "its spread": lambda y: y / (1 + y.std(0, correction=0)),
    "a softmax along the wrong axis": lambda y: y.softmax(0)[:, 1],
}

OWN: dict[str, Callable[[Tensor], Tensor]] = {
    "its own mean": lambda y: y[:, 1] - y.mean(1),
    "its own largest value": lambda y: y / y.abs().amax(1, keepdim=True),
    "a reference": lambda y: (y * REFERENCE).sum(1),
    "a softmax": lambda y: y.softmax(1)[:, 1],
}


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(4, 3).double().eval()


@BACKENDS
@pytest.mark.parametrize("examples", [1, 2, 3])
@pytest.mark.parametrize("function", MIX.values(), ids=MIX)
def test_what_is_taken_over_the_batch_is_refused(
    function: Callable[[Tensor], Tensor], examples: int, backend: str
) -> None:
    with pytest.raises(TargetError, match="mixes them"):
        explain(linear(), X[:examples], Occlusion(window=1, stride=1), backend=backend, target=function)


@pytest.mark.parametrize("examples", [1, 3])
@pytest.mark.parametrize("function", OWN.values(), ids=OWN)
def test_what_is_taken_over_a_row_is_explained(function: Callable[[Tensor], Tensor], examples: int) -> None:
    model = linear()
    scores = explain(model, X[:examples], Saliency(), target=function).scores
    assert scores is not None
    with torch.no_grad():
        alone = torch.cat([function(model(x)).reshape(1, -1) for x in X[:examples].split(1)])
    assert (scores - alone).abs().max() <= 1e-12


def test_a_function_of_the_only_row_is_explained() -> None:
    model = linear()
    found = explain(model, X[:1], Saliency(channels="none", absolute=False), target=lambda y: y[0, 1][None])
    assert torch.equal(found.map[0, 0], dict(model.named_parameters())["weight"][1].detach())


@pytest.mark.parametrize("examples", [1, 3])
def test_a_function_that_writes_into_the_output_is_asked_once_of_each(examples: int) -> None:
    model = linear()
    scores = explain(model, X[:examples], Saliency(), target=lambda y: y.mul_(2)[:, 1]).scores
    assert scores is not None
    assert torch.equal(scores[:, 0], 2 * model(X[:examples])[:, 1])
