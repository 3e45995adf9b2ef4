"""What a plan keeps of a long image grows with the image's length, not with its square; and whole maps of exits."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attribution import Execution, Occlusion, explain
from attribution.lowered.tracing import trace
from attribution_hooks.incremental.axis import Axis, Collected
from attribution_hooks.incremental.engine import Engine
from attribution_hooks.incremental.graph import Known, build
from attribution_hooks.incremental.numbers import Readings
from tests.conftest import logit, noise

LENGTHS = (400, 3200)


def convolution(kernel: int, dilation: int = 1, channels: int = 4) -> nn.Module:
    padding = (0, dilation * (kernel - 1) // 2)
    return nn.Conv2d(channels, 4, (1, kernel), padding=padding, dilation=(1, dilation))


def net(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()


def short_sighted(_: int) -> nn.Module:
    """Tiles are short, the exit is read whole."""
    return net(convolution(7, channels=1), nn.ReLU(), convolution(7), nn.ReLU())


def far_sighted(length: int) -> nn.Module:
    """The second layer's tile is a part of the image's length, the third's is all of it."""
    return net(
        convolution(3, channels=1), nn.ReLU(), convolution(5, length // 10), nn.ReLU(), convolution(5, length // 5)
    )


def sizes(value: Any) -> int:
    """Elements of all arrays in a dataclass and what it holds."""
    if isinstance(value, np.ndarray):
        return value.size
    if isinstance(value, dict):
        return sum(map(sizes, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(sizes, value))
    return sum(sizes(getattr(value, field.name)) for field in fields(value)) if is_dataclass(value) else 0


def laid(make: Callable[[int], nn.Module], length: int) -> int:
    """Elements of what a plan of a 1 × length image keeps; the windows' number grows with the length."""
    model, image = make(length), torch.zeros(1, 1, 1, length)
    with torch.no_grad():
        program, _, _ = build(model, trace(model), image)
    _, readings = Known().planned(program, Occlusion(window=(1, 40), stride=(1, 5)).lattice(1, length))
    return sizes(readings)


def linear(make: Callable[[int], nn.Module]) -> bool:
    """Whether eight times the length lays twelve times as much at most; groups may be one more."""
    short, long = (laid(make, length) for length in LENGTHS)
    assert short > LENGTHS[0]
    return long <= 1.5 * LENGTHS[1] / LENGTHS[0] * short


@pytest.mark.parametrize("make", [short_sighted, far_sighted])
def test_a_plan_grows_with_the_length_and_not_with_its_square(make: Callable[[int], nn.Module]) -> None:
    assert linear(make)


def test_the_numbers_of_all_windows_would_grow_with_the_square(monkeypatch: pytest.MonkeyPatch) -> None:
    compact = Collected.axis

    def tables(self: Collected, positions: int) -> Axis:
        axis = compact(self, positions)
        return replace(axis, start=axis.numbers(np.arange(positions)))

    monkeypatch.setattr(Collected, "axis", tables)
    assert not linear(far_sighted)


def test_the_whole_maps_of_exits_would(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of the places of one exit's pixels, for each window, is what the test would see."""
    planned = Known.planned

    def tables(self: Known, program: Any, lattice: Any) -> Any:
        plan, readings = planned(self, program, lattice)
        whole = [np.zeros((len(each.group.windows), plan.ops[-1].size[1])) for each in readings]
        return plan, [readings, whole]

    monkeypatch.setattr(Known, "planned", tables)
    assert not linear(short_sighted)


class Gathering(nn.Module):
    """Its head reads the image, a map that goes on, and the last map, all of them whole."""

    def __init__(self) -> None:
        super().__init__()
        self.begin, self.go_on = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3, stride=2)
        self.head = nn.Linear(11 * 17 * 23 + 6 * 8 * 11, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.begin(x).relu()
        z = self.go_on(y)
        logits: Tensor = self.head(torch.cat([x.flatten(1), y.flatten(1), z.flatten(1)], dim=1))
        return logits


def deltas(**how: Any) -> tuple[Tensor, Any]:
    torch.manual_seed(0)
    model, x = Gathering().double().eval(), noise(3, 3, 17, 23).double()
    technique = Occlusion(window=(5, 4), stride=(3, 2), baseline=1.5)
    result = explain(model, x, technique, target=logit([[1, 4]] * 3), execution=Execution(**how))
    return result.map, result.provenance["engine"]


@pytest.mark.parametrize("size", [None, 1, 7])
def test_exits_are_the_clean_maps_with_tiles_in_their_places(size: int | None) -> None:
    dense, _ = deltas(incremental=False)
    found, engine = deltas(incremental="always", batch_size=size)
    assert engine == "incremental"
    assert (found - dense).abs().max() <= 1e-12 * dense.abs().max()


def test_a_tile_in_another_place_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = Readings.tiles

    def beside(self: Readings, pairs: Any) -> Any:
        images, found = tiles(self, pairs)
        return images, [(rows, columns[:, ::-1]) for rows, columns in found]

    monkeypatch.setattr(Readings, "tiles", beside)
    assert deltas(incremental="always")[1] == "dense"


def test_a_clean_map_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles are written into copies: the next windows read the same clean map."""
    seen: list[tuple[Tensor, Tensor]] = []
    make = Engine.__init__

    def noted(self: Engine, *args: Any, **rest: Any) -> None:
        make(self, *args, **rest)
        seen.extend((clean, clean.clone()) for clean in self._clean.values())

    monkeypatch.setattr(Engine, "__init__", noted)
    assert deltas(incremental="always", batch_size=7)[1] == "incremental"
    assert len(seen) == 3
    assert all(torch.equal(clean, before) for clean, before in seen)
