"""Scores compare by value, go into files and come out of them, and say what they are in figures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import attribution
from attribution import (
    BoxScore,
    ClassScore,
    DifferenceScore,
    Execution,
    FunctionScore,
    GradCAM,
    LayerScore,
    Occlusion,
    RegionScore,
    Score,
    SimilarityScore,
    TargetError,
    ValueScore,
    explain,
    load,
)
from attribution.scores.stored import NamedScore
from tests.scores.cases import CASES
from tests.scores.net import Net, images
from tests.scores.outputs import BOXES, MASKS, REFERENCES, pooled, second_head
from tests.scores.test_oracle import QUESTIONS, technique

MAKERS: list[Callable[[], Score]] = [
    lambda: ClassScore(1),
    lambda: ClassScore(2),
    lambda: ClassScore("all"),
    lambda: ClassScore(),
    lambda: ClassScore([1, 2]),
    lambda: ClassScore([2, 1]),
    lambda: ClassScore([[1, 2]]),
    lambda: ClassScore(1, of="sigmoid"),
    lambda: ClassScore(1, output="logits"),
    lambda: ClassScore(1, output=second_head),
    lambda: ValueScore(),
    lambda: ValueScore(1),
    lambda: ValueScore((1,)),
    lambda: ValueScore([(1,), (2,)]),
    lambda: ValueScore([(2,), (1,)]),
    lambda: RegionScore(1),
    lambda: RegionScore(2),
    lambda: RegionScore(1, MASKS[0]),
    lambda: RegionScore(1, MASKS[1]),
    lambda: RegionScore(1, MASKS),
    lambda: RegionScore(1, MASKS[0], reduce="sum"),
    lambda: RegionScore(1, MASKS[0].reshape(9, 8)),
    lambda: SimilarityScore(REFERENCES[0]),
    lambda: SimilarityScore(REFERENCES[1]),
    lambda: SimilarityScore(REFERENCES),
    lambda: SimilarityScore(REFERENCES, each=True),
    lambda: SimilarityScore(REFERENCES[0], by="dot"),
    lambda: DifferenceScore(1, 2),
    lambda: DifferenceScore(2, 1),
    lambda: DifferenceScore(RegionScore(1, MASKS[0]), 1),
    lambda: DifferenceScore(RegionScore(1, MASKS[1]), 1),
    lambda: LayerScore("body", 1),
    lambda: LayerScore("body", 1, position=(1, 2)),
    lambda: LayerScore("stem", 1),
    lambda: LayerScore("stem", slice(1, 3)),
    lambda: BoxScore(BOXES[0], 1),
    lambda: BoxScore(BOXES[1], 1),
    lambda: BoxScore(BOXES, 1),
    lambda: FunctionScore(pooled),
    lambda: FunctionScore(pooled, "means"),
    lambda: FunctionScore(second_head),
    lambda: FunctionScore(pooled, layer="body"),
]


def test_two_scores_are_equal_where_all_they_hold_is() -> None:
    once, again = [make() for make in MAKERS], [make() for make in MAKERS]
    for i, one in enumerate(once):
        for j, other in enumerate(again):
            assert (one == other) is (i == j), (one, other)
        assert hash(one) == hash(again[i])
    assert len({*once, *again}) == len(MAKERS)


def test_tensors_are_the_scores_own() -> None:
    mask, reference, box, target = MASKS.clone(), REFERENCES.clone(), BOXES.clone(), torch.tensor([1, 2])
    made = [RegionScore(1, mask), SimilarityScore(reference), BoxScore(box, 1), ClassScore(target)]
    for tensor in (mask, reference, box, target):
        tensor.zero_()
    assert made == [RegionScore(1, MASKS), SimilarityScore(REFERENCES), BoxScore(BOXES, 1), ClassScore([1, 2])]


def test_arrays_and_numbers_of_numpy_stand_for_tensors() -> None:
    made: Any = attribution
    assert made.RegionScore(np.int64(1), MASKS.numpy()) == RegionScore(1, MASKS)
    assert made.SimilarityScore(REFERENCES.numpy()) == SimilarityScore(REFERENCES)
    assert made.ValueScore(np.array([1, 3])) == ValueScore((1, 3))
    assert made.LayerScore("body", np.int32(1), position=np.array([1, 2])) == LayerScore("body", 1, position=(1, 2))


class Unhashable:
    """A callable with a data structure's own equality."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unhashable)

    def __call__(self, output: torch.Tensor) -> torch.Tensor:
        return pooled(output)


def test_what_has_no_hash_can_be_asked_and_compared() -> None:
    assert hash(FunctionScore(Unhashable())) == hash(FunctionScore(Unhashable()))
    assert FunctionScore(Unhashable()) == FunctionScore(Unhashable())
    result = explain(Net(lambda m: m), images(2), GradCAM(layers=("body",)), target=Unhashable())
    assert result.names[0] == ("Unhashable 0", "Unhashable 1", "Unhashable 2", "Unhashable 3")


@pytest.mark.parametrize(("name", "kind"), QUESTIONS)
def test_a_score_survives_a_file(name: str, kind: str, tmp_path: Path) -> None:
    case = CASES[name]
    net, inputs = Net(case.finish), images(2)
    result = explain(net, inputs, technique(kind, case), target=case.asked(2))
    found = load(result.save(tmp_path / "a.safetensors"))
    assert found.names == result.names
    assert found.scores is not None
    assert result.scores is not None
    assert torch.equal(found.scores, result.scores)
    again = load(found.save(tmp_path / "b.safetensors"))
    assert again.score == found.score
    assert hash(again.score) == hash(found.score)
    if isinstance(result.score, FunctionScore) or name == "heads by function":
        assert found.score != result.score
        with pytest.raises(TargetError, match="file"):
            explain(net, inputs, technique(kind, case), target=found.score)
        return
    assert found.score == result.score
    asked = explain(net, inputs, technique(kind, case), target=found.score)
    assert torch.equal(asked.map, result.map)


def test_a_difference_with_a_function_is_kept_by_its_names(tmp_path: Path) -> None:
    asked = DifferenceScore(FunctionScore(lambda output: output[:, 1], "second"), 0)
    result = explain(Net(pooled), images(2), GradCAM(layers=("body",)), target=asked)
    found = load(result.save(tmp_path / "a.safetensors")).score
    assert isinstance(found, DifferenceScore)
    assert found.a == NamedScore("second")
    assert str(found) == str(asked) == "second − logit"
    assert result.names == (("second − class 0",),) * 2


NAMES = {
    "region, per image": ("channel 2",),
    "value (N,)": ("value",),
    "entry of (N, K, L)": ("value (1, 3)",),
    "one unit, both classes": ("class 1", "class 0"),
    "cosine, common": ("cosine",),
    "dot, several": ("dot 0", "dot 1"),
    "all classes less one": tuple(f"class {k} − class 0" for k in range(4)),
    "difference of regions": ("channel 2 − channel 2",),
    "unit of a layer": ("body channel 3 at 2, 5",),
    "box of two tensors": ("box of class 0",),
    "function of two": ("per_image",),
    "function of several": ("means 0", "means 1", "means 2", "means 3"),
}


@pytest.mark.parametrize("name", NAMES)
def test_figures_name_what_is_explained(name: str) -> None:
    case = CASES[name]
    kind = case.only or "grad_cam"
    result = explain(Net(case.finish), images(2), technique(kind, case), target=case.asked(2))
    assert result.names == (NAMES[name],) * 2
    titles = [axes.get_title() for axes in result.figure(size=8).axes if axes.get_title()]
    assert result.scores is not None
    for title, label, value in zip(titles[: len(NAMES[name])], NAMES[name], result.scores[0], strict=False):
        between = " " if result.target is not None else ": "
        assert f"{label}{between}{value:.3g}" in " ".join(title.split())


OUTPUTS: dict[str, tuple[Callable[[torch.Tensor], Any], Any, bool]] = {
    "logits": (pooled, None, False),
    "probabilities": (lambda m: pooled(m).softmax(1), None, True),
    "probabilities, log": (lambda m: pooled(m).softmax(1), ClassScore(of="log_probability"), True),
    "probabilities, sigmoid": (lambda m: pooled(m).softmax(1), ClassScore(of="sigmoid"), True),
    "probabilities as they are": (lambda m: pooled(m).softmax(1), ClassScore(of="logit"), False),
    "labels": (lambda m: pooled(m).sigmoid(), None, False),
    "one unit": (
        lambda m: torch.ones_like(pooled(m)[:, :1]) + 0 * pooled(m)[:, :1],
        ClassScore(1, of="sigmoid"),
        False,
    ),
    "in a difference": (lambda m: pooled(m).softmax(1), DifferenceScore(1, 2), True),
}


@pytest.mark.parametrize("size", [None, 1])
@pytest.mark.parametrize("name", OUTPUTS)
def test_probabilities_of_probabilities_are_said(name: str, size: int | None) -> None:
    finish, asked, said = OUTPUTS[name]
    result = explain(
        Net(finish), images(2), Occlusion(window=3, stride=2), target=asked, execution=Execution(batch_size=size)
    )
    assert ("as probabilities do" in str(result.provenance.get("score", ""))) is said
