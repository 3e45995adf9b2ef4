"""No score makes a call wait more often for the device than a class does."""

from typing import Any

import pytest
from torch import Tensor

from attribution import (
    ClassScore,
    DifferenceScore,
    FunctionScore,
    GradCAM,
    Occlusion,
    RegionScore,
    SimilarityScore,
    Technique,
    ValueScore,
    explain,
)
from tests.scores.net import Finish, Net, images
from tests.scores.outputs import MASKS, REFERENCES, pooled
from tests.simulated_device.counted import counted

SCORES: dict[str, tuple[Finish, Any]] = {
    "predicted class": (pooled, None),
    "probability": (pooled, ClassScore(1, of="probability")),
    "log probability": (pooled, ClassScore(of="log_probability")),
    "sigmoid": (pooled, ClassScore(1, of="sigmoid")),
    "value": (pooled, ValueScore(1)),
    "region": (lambda m: m, RegionScore(1, MASKS)),
    "predicted region": (lambda m: m, RegionScore(2)),
    "cosine": (pooled, SimilarityScore(REFERENCES, each=True)),
    "difference": (pooled, DifferenceScore(1, 2)),
    "difference of regions": (lambda m: m, DifferenceScore(RegionScore(1, MASKS), RegionScore(2))),
    "function": (pooled, FunctionScore(lambda output: output[:, 1])),
}


def waits(technique: Technique, finish: Finish, asked: Any, device: str) -> tuple[int, Any]:
    """Of a call of a question that was asked before."""
    net, inputs = Net(finish).to(device), images(3).to(device)

    def ask(inputs: Tensor) -> None:
        explain(net, inputs, technique, target=asked)

    ask(inputs)
    ask(inputs)
    with counted() as seen:
        ask(inputs)
    return seen.waits, seen.lines


@pytest.mark.parametrize(
    "technique", [GradCAM(layers=("body",)), Occlusion(window=3, stride=2)], ids=lambda technique: technique.name
)
@pytest.mark.parametrize("name", SCORES)
def test_a_score_waits_no_more_than_a_class(name: str, technique: Technique, device: str) -> None:
    finish, asked = SCORES[name]
    most, _ = waits(technique, pooled, ClassScore(1, of="logit"), device)
    found, lines = waits(technique, finish, asked, device)
    assert found <= most, lines
