from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torch.hub

from attribution import zoo


@pytest.fixture(scope="session")
def squeezenet() -> zoo.LoadedModel:
    return zoo.load("bundled:squeezenet1_1")


@pytest.fixture
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch's own."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every URL that somebody tries to open; none can be."""
    tried: list[str] = []

    def urlopen(request: object, *args: object, **kwargs: object) -> None:
        tried.append(getattr(request, "full_url", str(request)))
        raise URLError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    monkeypatch.setattr(torch.hub, "urlopen", urlopen)
    return tried


@pytest.fixture
def differing() -> Callable[[dict[str, torch.Tensor], dict[str, torch.Tensor]], list[str]]:
    """The names under which two state dicts differ, by name, shape or value."""

    def compare(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> list[str]:
        return [name for name in a.keys() | b.keys() if not (name in a and name in b and torch.equal(a[name], b[name]))]

    return compare
