"""Fixtures of Grad-CAM's engines and of the last convolution."""

from typing import Any

import pytest
from torch import Tensor

from attribution_hooks.cam import backward
from attribution_hooks.filter_visualization.last_convolution import LastConvolution


@pytest.fixture
def two_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few targets are taken one by one, but where the rest is to be seen on small models."""
    monkeypatch.setattr(backward, "FEW_TARGETS", 1)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What went into the place of a last convolution that was not run, forward by forward."""
    seen: list[Tensor] = []
    whole = LastConvolution.entry

    def entry(self: LastConvolution, run: Any, images: Tensor) -> Tensor:
        seen.append(whole(self, run, images))
        return seen[-1]

    monkeypatch.setattr(LastConvolution, "entry", entry)
    return seen
