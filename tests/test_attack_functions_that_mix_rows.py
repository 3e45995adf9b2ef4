"""A function of the output that takes something over the batch is refused: alone, an example has another score."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from attribution import (
    ClassScore,
    DifferenceScore,
    Occlusion,
    Saliency,
    SimilarityScore,
    TargetError,
    ValueScore,
    explain,
)
from attribution.scores.score import Score
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


SELECT: dict[str, Callable[[Callable[[Tensor], Tensor]], Score]] = {
    "classes": lambda f: ClassScore(1, output=f),
    "the predicted class": lambda f: ClassScore(output=f),
    "a value": lambda f: ValueScore(1, output=f),
    "similarity": lambda f: SimilarityScore(REFERENCE, output=f),
    "a side": lambda f: DifferenceScore(ClassScore(1, output=f), ClassScore(0)),
}


@BACKENDS
@pytest.mark.parametrize("examples", [1, 3])
@pytest.mark.parametrize("make", SELECT.values(), ids=SELECT)
def test_a_selector_that_mixes_rows_is_refused(
    make: Callable[[Callable[[Tensor], Tensor]], Score], examples: int, backend: str
) -> None:
    def centred(output: Tensor) -> Tensor:
        return output - output.mean(0)

    def doubled(output: Tensor) -> Tensor:
        return 2 * output

    technique = Saliency(channels="none", absolute=False)
    with pytest.raises(TargetError, match=r"Score.output gives a row .* mixes examples"):
        explain(linear(), X[:examples], technique, backend=backend, target=make(centred))
    found = explain(linear(), X[:examples], technique, backend=backend, target=make(doubled))
    alone = torch.cat(
        [explain(linear(), x, technique, backend=backend, target=make(doubled)).map for x in X[:examples].split(1)]
    )
    assert (found.map - alone).abs().max() <= 1e-12
