"""Fixtures of the incremental engine."""

import pytest

from attribution_hooks.occlusion import incremental


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine runs however little it gains."""
    monkeypatch.setattr(incremental, "LEAST_GAIN", 0.0)
