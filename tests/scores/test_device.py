"""On another device scores say the same, refuse the same, and keep what belongs to each image."""

from typing import Any

import pytest
import torch
from torch import Tensor

from attribution import AttributionError, Execution, ModelError, Occlusion, RegionScore, TargetError, explain
from tests.conftest import BACKENDS
from tests.draw import pairwise
from tests.scores.cases import CASES
from tests.scores.net import Finish, Net, images
from tests.scores.outputs import MASKS, pooled
from tests.scores.test_oracle import BY_NAME, EXACT, FOLDED, technique, truth
from tests.scores.test_settled import CAM


@pytest.mark.device
@pairwise(question=BY_NAME, size=[None, 1], backend=["hooks", "captum"])
def test_a_score_is_what_the_loop_says_there_too(
    question: tuple[str, str], size: int | None, backend: str, device: str
) -> None:
    name, kind = question
    case = CASES[name]
    scores, maps = truth(name, kind, 3)
    result = explain(
        Net(case.finish).to(device), images(3).to(device), technique(kind, case), backend=backend,
        target=case.asked(3), execution=Execution(batch_size=size),
    )  # fmt: skip
    assert result.scores is not None
    assert (result.scores.cpu() - scores).abs().max() <= EXACT
    allowed = FOLDED if (kind, backend) == ("occlusion", "captum") else EXACT
    assert (result.map.cpu() - maps).abs().max() <= allowed * max(1.0, float(scores.abs().max()))
    here = explain(Net(case.finish), images(3), technique(kind, case), target=case.asked(3))
    assert result.score == here.score
    assert result.names == here.names


HELD = (MASKS, torch.tensor([1, 0, 1])[:, None, None])

WRONG: dict[str, tuple[Finish, Any, type[AttributionError], str]] = {
    "empty region": (lambda m: m, RegionScore(1, HELD[0] * HELD[1]), TargetError, "no place of example 1 to channel 1"),
    "empty predicted region": (lambda m: m[:, :1] - 1e3, RegionScore(0), TargetError, "assigns no place of example 0"),
    "data of each image": (
        lambda m: m, lambda o: (o[:, 1] * MASKS.to(o.device)).sum((1, 2)), TargetError, "examples",
    ),
    "ints": (pooled, lambda o: o.argmax(1), ModelError, "expected floats"),
}  # fmt: skip


@pytest.mark.device
@BACKENDS
@pytest.mark.parametrize("kind", [CAM, Occlusion(window=3, stride=2)], ids=lambda kind: kind.name)
@pytest.mark.parametrize("name", WRONG)
def test_it_is_refused_in_the_same_words(name: str, kind: Any, backend: str, device: str) -> None:
    finish, asked, error, words = WRONG[name]
    net = Net(finish).to(device)
    for _ in range(3):  # a question that was asked before is looked at later
        with pytest.raises(error, match=words):
            explain(net, images(3).to(device), kind, backend=backend, target=asked)


@pytest.mark.device
@BACKENDS
def test_probabilities_of_probabilities_are_said_there_too(backend: str, device: str) -> None:
    def softmax(maps: Tensor) -> Tensor:
        return pooled(maps).softmax(1)

    for finish, said in ((softmax, True), (pooled, False)):
        found = explain(
            Net(finish).to(device), images(2).to(device), Occlusion(window=3, stride=2), backend=backend
        ).provenance
        assert ("as probabilities do" in str(found.get("score", ""))) is said
