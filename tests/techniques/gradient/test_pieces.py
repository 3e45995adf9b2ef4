"""Points are made for their batch, anew where one goes back, and given up when their last example was asked for."""

import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import Execution, GradientSHAP, Inputs, IntegratedGradients, PluginError, Saliency, SmoothGrad, explain
from attribution.techniques.gradient.family import Point
from attribution.testing import small_cnn
from attribution_hooks.gradient.pieces import Pieces
from tests.techniques.gradient.cases import noise

COUNT, POINTS = 3, 4


def _points(made: list[int], held: list[Any]) -> Iterator[Point]:
    for index in range(POINTS):
        made.append(index)
        values = torch.arange(COUNT, dtype=torch.float64)[:, None] + 10.0 * index
        held.append(weakref.ref(values))
        yield Point(Inputs.of(values), weight=float(index))
        del values


def _values(found: tuple[Inputs, Any]) -> list[float]:
    return found[0].tensor[:, 0].tolist()


def test_parts_of_any_size_and_ways_back() -> None:
    made, held = list[int](), list[Any]()
    line = Pieces(lambda: _points(made, held), COUNT)
    everything = [10.0 * place for place in range(POINTS) for _ in range(COUNT)]
    everything = [value + n % COUNT for n, value in enumerate(everything)]
    for first, end in [(0, 2), (2, 7), (7, 8), (8, 12), (1, 5), (3, 6), (0, 12)]:
        found = line.at(range(first, end))
        assert _values(found) == everything[first:end], (first, end)
        pieces = found[1]
        assert sum(piece.rows.stop - piece.rows.start for piece in pieces) == end - first
        assert [piece.weight for piece in pieces] == [*map(float, range(first // COUNT, (end - 1) // COUNT + 1))]
    assert made == [0, 1, 2, 3, 0, 1, 0, 1, 2, 3]


def test_what_was_asked_for_whole_is_not_kept() -> None:
    made, held = list[int](), list[Any]()
    line = Pieces(lambda: _points(made, held), COUNT)
    line.at(range(0, 2 * COUNT))
    assert held[0]() is None
    line.at(range(2 * COUNT, 3 * COUNT - 1))
    assert held[2]() is not None
    assert _values(line.at(range(3 * COUNT - 1, 3 * COUNT))) == [22.0]
    assert made == [0, 1, 2]


def test_too_few_points_are_an_error() -> None:
    class Short(IntegratedGradients):
        def points(self, inputs: Inputs) -> Iterator[Point]:
            yield from list(super().points(inputs))[:-1]

    with pytest.raises(PluginError, match="end before point 3"):
        explain(small_cnn(), noise(1, 3, 9, 11).float(), Short(steps=4), target=0)


class _Writes(nn.Module):
    """Writes into what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = small_cnn(dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.inner(x.mul_(2.0).relu_())
        return found


class _Plain(_Writes):
    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.inner((x * 2.0).relu())
        return found


@pytest.mark.parametrize("technique", [Saliency(), IntegratedGradients(steps=3), SmoothGrad(), GradientSHAP(noise=0.1)])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_model_may_write_into_what_it_is_shown(technique: Any, size: int) -> None:
    x = noise(2, 3, 9, 11)
    kept, execution = x.clone(), Execution(batch_size=size)
    found, plain = (explain(m, x, technique, target=2, execution=execution) for m in (_Writes(), _Plain()))
    assert torch.equal(x, kept)
    assert torch.equal(found.map, plain.map)
    assert plain.map.abs().max() > 0


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_model_sees_the_very_values_in_their_layout(layout: torch.memory_format) -> None:
    seen: list[Tensor] = []
    x = noise(2, 3, 9, 11)
    x[0, 0, 0, :4] = torch.tensor([0.0, -0.0, 5e-324, -5e-324])
    x = x.contiguous(memory_format=layout)

    class Sees(_Writes):
        def forward(self, x: Tensor) -> Tensor:
            if x.requires_grad:
                seen.append(x.detach().clone())
                assert x.stride() == given.stride()
                assert not x.is_leaf
            found: Tensor = self.inner(x)
            return found

    given = x
    explain(Sees(), x, Saliency(), target=1)
    assert torch.equal(seen[-1].view(torch.int64), x.view(torch.int64))
