"""Windows wait for large linear layers, whose weights are read once for all of them."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import Execution
from attribution_hooks.incremental import differences
from attribution_hooks.incremental.sink import Sink
from tests.backends.occlusion.truth import Net, ask, error, net
from tests.conftest import noise


def _trunk(self: Any, x: Tensor) -> Tensor:
    logits: Tensor = self.wide(self.second(self.first(x).relu()).relu().flatten(1))
    return logits


def _net(wide: int) -> Net:
    def layers() -> dict[str, nn.Module]:
        return {
            "first": nn.Conv2d(3, 8, 3, padding=1),
            "second": nn.Conv2d(8, 2, 3, stride=2, padding=1),
            "wide": nn.LazyLinear(wide),
        }

    return net(_trunk, layers)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each forward of the rest."""
    given: list[int] = []
    right = Sink._fill

    def counted(self: Sink, logits: Tensor, *rest: Any) -> None:
        given.append(len(logits))
        right(self, logits, *rest)

    monkeypatch.setattr(Sink, "_fill", counted)
    monkeypatch.setattr(differences, "WINDOWS", 8)
    return given


@pytest.mark.parametrize("images", [1, 3])
def test_large_layers_are_given_many_windows(images: int, batches: list[int]) -> None:
    model, x = _net(300), noise(images, 3, 17, 19, dtype=torch.float64)
    result = ask(model, x)
    assert result.provenance["engine"] == "incremental"
    assert error(model, result, x) < 1e-12
    windows = int(result.provenance["windows"]) * images
    assert sum(batches) == windows
    assert len(batches) <= -(-windows // (differences.ROWS - 8))
    assert max(batches) <= differences.ROWS


@pytest.mark.parametrize(("wide", "budget"), [(9, None), (300, 2**17)])
def test_small_layers_and_small_budgets_make_nothing_wait(wide: int, budget: int | None, batches: list[int]) -> None:
    model, x = _net(wide), noise(1, 3, 17, 19, dtype=torch.float64)
    result = ask(model, x, execution=Execution(memory_budget=budget))
    assert error(model, result, x) < 1e-12
    assert max(batches) <= 8
