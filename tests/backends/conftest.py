"""Fixtures of Grad-CAM's engines."""

import pytest

from attribution_hooks.grad_cam import backward


@pytest.fixture
def two_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few targets are taken one by one, but where the rest is to be seen on small models."""
    monkeypatch.setattr(backward, "FEW_TARGETS", 1)
