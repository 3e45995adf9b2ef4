"""Every torchvision family, with weights whose signal neither dies nor explodes, on small images of odd sizes."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import Execution, Occlusion
from attribution_hooks.incremental.engine import Engine
from benchmarks.families import NETS, family
from tests.backends.occlusion.truth import ask
from tests.conftest import noise

pytestmark = pytest.mark.usefixtures("eager")

QUICK = ("resnet18", "squeezenet1_1", "mobilenet_v2", "shufflenet_v2_x0_5", "mobilenet_v3_small")
SIZES = {"alexnet": (67, 71), "inception_v3": (79, 83), "vit_b_16": (224, 224)}


@dataclass(frozen=True)
class Figures:
    """One family: ``double`` and ``single`` are parts of the largest value, ``plain`` that of plain float32."""

    engine: str
    reason: str
    saved: float
    double: float
    single: float
    plain: float


def technique(name: str) -> Occlusion:
    """Nine windows: every border and corner, the last ones cut."""
    height, width = SIZES.get(name, (45, 51))
    window = (height // 3 + 3, width // 3 + 3)
    return Occlusion(window=window, stride=(height // 3, width // 3), baseline=0.5)


def plain(model: nn.Module, x: Tensor, question: Occlusion) -> Tensor:
    """score(x) − score(covered) of each window, (windows, K), one forward each."""
    rows = []
    with torch.no_grad():
        clean = model(x.clone())
        for (top, bottom), (left, right) in question.lattice(*x.shape[2:]).windows:
            covered = x.clone()
            covered[..., top:bottom, left:right] = question.baseline  # type: ignore[assignment]  # one number
            rows.append(clean - model(covered))
    return torch.cat(rows).double()


def folded(deltas: Tensor, x: Tensor, question: Occlusion) -> Tensor:
    total, count = torch.zeros(deltas.shape[1], *x.shape[2:], dtype=torch.float64), torch.zeros(x.shape[2:])
    for delta, ((top, bottom), (left, right)) in zip(deltas, question.lattice(*x.shape[2:]).windows, strict=True):
        total[:, top:bottom, left:right] += delta[:, None, None]
        count[top:bottom, left:right] += 1
    return total / count


def figures(name: str) -> Figures:
    model, question = family(name), technique(name)
    x = noise(1, 3, *SIZES.get(name, (45, 51)))
    dense = folded(plain(model, x, question), x, question)
    single = ask(model, x, question, Execution(batch_size=9))
    double = ask(model.double(), x.double(), question, Execution(batch_size=9))
    truth = folded(plain(model, x.double(), question), x, question)
    size = truth.abs().max()
    found: dict[str, Any] = dict(double.provenance)

    def off(map_: Tensor) -> float:
        return ((map_.double() - truth).abs().max() / size).item()

    assert size > 1e-3
    return Figures(
        found["engine"],
        found.get("reason", ""),
        found.get("macs_dense", 1) / found.get("macs", 1),
        off(double.maps["input"][0]),
        off(single.maps["input"][0]),
        off(dense),
    )


def held(name: str) -> None:
    found = figures(name)
    assert found.double < 1e-12
    assert found.single < 2 * found.plain + 1e-7
    assert name == "vit_b_16" or (found.engine == "dense") == (name == "swin_t"), found.reason


@pytest.mark.parametrize("name", QUICK)
def test_family(name: str) -> None:
    held(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NETS if name not in QUICK])
def test_every_family(name: str) -> None:
    held(name)


@pytest.mark.usefixtures("unproved")
def test_one_wrong_cell_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Engine._gathered

    def wrong(self: Any, *args: Any) -> Tensor:
        found = right(self, *args)
        found[0, 0, 0, 0] += 1e-3
        return found

    monkeypatch.setattr(Engine, "_gathered", wrong)
    assert figures("squeezenet1_1").double > 1e-9
