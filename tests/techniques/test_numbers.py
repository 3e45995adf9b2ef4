"""numpy's and torch's numbers and arrays stand where Python's ints and tuples do; bools are no numbers."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attribution import (
    Activations,
    ClassScore,
    Execution,
    FilterVisualization,
    GradCAM,
    InputError,
    Occlusion,
    TargetError,
    ValueScore,
    explain,
    load,
    numbers,
)
from attribution.comparison.rounding import budget_factor
from tests.conftest import build, noise


def filters(**fields: Any) -> FilterVisualization:
    return FilterVisualization(**{"layer": "body", "channels": (0, 2), **fields})


def notebook(**fields: Any) -> FilterVisualization:
    return FilterVisualization.notebook(layer="body", **fields)


PAIRS: list[tuple[Any, Any]] = [
    (Occlusion(window=np.int64(9), stride=np.uint8(5)), Occlusion(window=9, stride=5)),  # type: ignore[arg-type]
    (Occlusion(window=np.array([9, 7]), stride=torch.tensor([5, 4])), Occlusion(window=(9, 7), stride=(5, 4))),  # type: ignore[arg-type]
    (Occlusion(window=np.array(9), baseline=np.float32(0.5), stride=3), Occlusion(window=9, baseline=0.5, stride=3)),  # type: ignore[arg-type]
    (Occlusion(baseline=np.array([0.5, 0.0, -1.0])), Occlusion(baseline=(0.5, 0.0, -1.0))),  # type: ignore[arg-type]
    (Occlusion(baseline=torch.tensor([1, 0, 2])), Occlusion(baseline=(1.0, 0.0, 2.0))),
    (Occlusion(baseline=[np.float64(1), np.int8(2), 3]), Occlusion(baseline=(1.0, 2.0, 3.0))),  # type: ignore[arg-type]
    (ClassScore(of=np.str_("logit")), ClassScore(of="logit")),  # type: ignore[arg-type]
    (GradCAM(layers=np.array(["stem", "body"])), GradCAM(layers=("stem", "body"))),  # type: ignore[arg-type]
    (GradCAM(relu=np.bool_(False), upsample=np.True_), GradCAM(relu=False)),  # type: ignore[arg-type]
    (GradCAM(tokens=np.array([1, 3, 4])), GradCAM(tokens=(1, 3, 4))),  # type: ignore[arg-type]
    (Activations(layers=["stem"], reduce=np.str_("mean")), Activations(layers=("stem",), reduce="mean")),  # type: ignore[arg-type]
    (filters(channels=np.arange(3)), filters(channels=(0, 1, 2))),
    (filters(channels=torch.tensor([4, 1])), filters(channels=(4, 1))),
    (filters(channels=range(2), neuron=np.array([3, 4])), filters(channels=(0, 1), neuron=(3, 4))),
    (filters(steps=np.int32(3), seed=np.uint64(5), jitter=torch.tensor(2)), filters(steps=3, seed=5, jitter=2)),
    (filters(size=np.array([17, 23]), in_channels=np.int16(3)), filters(size=(17, 23), in_channels=3)),
    (filters(step_size=np.float16(0.5), spread=np.float32(2)), filters(step_size=0.5, spread=2.0)),
    (filters(scale=np.float64(0.25), noise=torch.tensor(1)), filters(scale=0.25, noise=1.0)),
    (notebook(channels=np.arange(2)), notebook(channels=(0, 1))),
    (Execution(batch_size=np.int64(2), memory_budget=np.uint32(9)), Execution(batch_size=2, memory_budget=9)),  # type: ignore[arg-type]
    (Execution(progress=np.False_), Execution()),  # type: ignore[arg-type]
    (ClassScore(np.uint8(3), output=np.int64(1)), ClassScore(3, output=1)),  # type: ignore[arg-type]
    (ValueScore(np.array([1, 2])), ValueScore((1, 2))),  # type: ignore[arg-type]
    (ValueScore(np.int16(2), output=np.str_("heads.1")), ValueScore(2, output="heads.1")),  # type: ignore[arg-type]
]  # fmt: skip


@pytest.mark.parametrize(("given", "plain"), PAIRS, ids=lambda value: repr(value)[:60])
def test_they_become_pythons_own(given: Any, plain: Any) -> None:
    assert given == plain
    for ours, theirs in zip(vars(given).values(), vars(plain).values(), strict=True):
        assert type(ours) is type(theirs)
    if not isinstance(given, Execution):
        assert json.dumps(asdict(given)) == json.dumps(asdict(plain))


REFUSED: list[Callable[[], object]] = [
    lambda: Occlusion(window=np.bool_(True)),  # type: ignore[arg-type]
    lambda: Occlusion(window=np.array([True, True])),  # type: ignore[arg-type]
    lambda: Occlusion(window=torch.tensor(True)),  # type: ignore[arg-type]
    lambda: Occlusion(window=np.float64(9)),  # type: ignore[arg-type]
    lambda: Occlusion(window=np.array([9, 7, 5])),  # type: ignore[arg-type]
    lambda: Occlusion(window=np.array([[9, 7]])),  # type: ignore[arg-type]
    lambda: Occlusion(baseline=np.bool_(True)),  # type: ignore[arg-type]
    lambda: Occlusion(baseline=np.array([0.0, np.nan])),  # type: ignore[arg-type]
    lambda: Occlusion(baseline=np.array([1j])),  # type: ignore[arg-type]
    lambda: Occlusion(baseline=np.array([])),  # type: ignore[arg-type]
    lambda: GradCAM(relu=1),  # type: ignore[arg-type]
    lambda: GradCAM(relu=np.array([True])),  # type: ignore[arg-type]
    lambda: GradCAM(tokens=np.array([1])),  # type: ignore[arg-type]
    lambda: filters(channels=np.array([True, False])),
    lambda: filters(channels=np.array([0.0])),
    lambda: filters(channels=np.array([], dtype=int)),
    lambda: filters(channels=np.int64(3)),
    lambda: filters(channels=(10**20,)),
    lambda: filters(seed=2**63),
    lambda: filters(neuron=np.array([1, 2, 3, 4])),
    lambda: filters(steps=np.True_),
    lambda: filters(step_size=10**400),
    lambda: FilterVisualization.notebook(layer="body", channels=3),  # type: ignore[arg-type]
    lambda: Execution(batch_size=np.True_),  # type: ignore[arg-type]
    lambda: Execution(batch_size=np.float64(2)),  # type: ignore[arg-type]
    lambda: Execution(progress="yes"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("make", REFUSED)
def test_bools_floats_and_other_shapes_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InputError, match="give"):
        make()


SCORES: list[Callable[[], object]] = [
    lambda: ClassScore(output=np.float64(1)),  # type: ignore[arg-type]
    lambda: ClassScore(output=np.True_),  # type: ignore[arg-type]
    lambda: ClassScore(np.float64(1)),  # type: ignore[arg-type]
    lambda: ClassScore(of=np.str_("loss")),  # type: ignore[arg-type]
    lambda: ValueScore(np.float64(1)),  # type: ignore[arg-type]
    lambda: ValueScore(np.True_),  # type: ignore[arg-type]
    lambda: ValueScore(np.array([], dtype=int)),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("make", SCORES)
def test_the_same_of_scores(make: Callable[[], object]) -> None:
    with pytest.raises(TargetError, match="give"):
        make()


TARGETS: list[tuple[Any, list[list[int]]]] = [
    (np.int64(3), [[3], [3]]),
    (np.array(3), [[3], [3]]),
    (np.array([3, 1]), [[3], [1]]),
    (np.array([3, 1], dtype=np.uint16), [[3], [1]]),
    ([np.int8(3), torch.tensor(1)], [[3], [1]]),
    ([np.array([3, 1]), np.array([0, 2])], [[3, 1], [0, 2]]),
    ([torch.tensor([3, 1]), (0, np.int64(2))], [[3, 1], [0, 2]]),
    (range(2), [[0], [1]]),
    (np.array([[3], [1]], dtype=object), [[3], [1]]),
]


@pytest.mark.parametrize(("given", "meant"), TARGETS, ids=lambda value: repr(value)[:40])
def test_targets(given: Any, meant: list[list[int]]) -> None:
    found = explain(build("cnn"), noise(2, 3, 17, 23), GradCAM(layers=("body",)), target=given).target
    assert found is not None
    assert found.tolist() == meant


@pytest.mark.parametrize(
    "target",
    [
        np.array([True, False]),
        [np.bool_(True), 1],
        np.array([1.0, 2.0]),
        np.array(["a", "b"]),
        [[1], [2, 3]],
        torch.eye(2).to_sparse(),
        torch.zeros(2, dtype=torch.int64, device="meta"),
        torch.nested.nested_tensor([torch.tensor([1]), torch.tensor([2])], layout=torch.jagged),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_targets_that_are_refused(target: Any) -> None:
    with pytest.raises(TargetError):
        explain(build("cnn"), noise(2, 3, 17, 23), GradCAM(layers=("body",)), target=target)


def test_single_values_of_more_than_one_axis_are_no_numbers() -> None:
    assert numbers.integer(np.array([3])) is None
    assert numbers.integer(torch.tensor([3])) is None
    assert numbers.integer(torch.tensor(3)) == 3
    assert numbers.real(np.complex64(1)) is None
    assert numbers.items("ab") is None
    assert numbers.items({1, 2}) is None


@dataclass(frozen=True, kw_only=True)
class Renamed(FilterVisualization):
    """With a field of its own."""

    word: str = "mine"


class Plain(FilterVisualization):
    """Without."""


class Windows(Occlusion):
    """Likewise."""


@pytest.mark.parametrize("backend", ["hooks", "captum"])
@pytest.mark.parametrize("kind", [Renamed, Plain])
def test_a_subclass_of_filter_visualization_is_one(kind: Any, backend: str, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"layer": "body", "channels": (0, 2), "steps": 2, "size": (17, 23)}
    expected = explain(build("cnn"), None, FilterVisualization(**fields), backend=backend)
    found = explain(build("cnn"), None, kind(**fields), backend=backend)
    assert type(found.technique) is kind
    assert torch.equal(found.map, expected.map)
    assert budget_factor(found.technique, torch.float32) == budget_factor(expected.technique, torch.float32)
    assert all(agreement.holds for agreement in found.technique.agreement(found, expected))
    found.figure()
    if kind is Plain:
        assert torch.equal(load(found.save(tmp_path / "a.safetensors")).map, found.map)
    with pytest.raises(InputError, match="'fourier' or 'pixel'"):
        kind(**fields, parametrization="wavelet")


def test_a_subclass_of_another_technique_too() -> None:
    found = explain(build("cnn"), noise(1, 3, 17, 23), Windows(window=5, stride=3), target=1)
    expected = explain(build("cnn"), noise(1, 3, 17, 23), Occlusion(window=5, stride=3), target=1)
    assert torch.equal(found.map, expected.map)
