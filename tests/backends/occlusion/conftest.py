"""Fixtures of the incremental engine."""

import pytest
import torch

from attribution_hooks.incremental import differences as incremental
from attribution_hooks.incremental.proof import Proof


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine runs however little it gains."""
    monkeypatch.setattr(incremental, "LEAST_GAIN", 0.0)


@pytest.fixture
def unproved(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is believed without a look at what the model says of covered images."""
    for check in ("agrees", "told"):
        monkeypatch.setattr(Proof, check, lambda *_: torch.tensor(True))
