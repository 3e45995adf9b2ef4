"""Occlusion of ResNet-18 at 224 px, window 40, stride 20: what it launches, and where it waits."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import Execution, Occlusion, explain
from attribution.testing import small_cnn
from attribution_hooks.occlusion import incremental, launches
from attribution_hooks.occlusion.proof import Proof
from benchmarks.models import MODELS
from tests.conftest import noise
from tests.simulated_device.counted import Seen, counted

TECHNIQUE = Occlusion(window=40, stride=20, score="logit")
MOST = {"always": 1900, False: 240}
"""Launches of one image; 15,000 and 830 with one operation per window and per index."""


def asked(tiles: Any) -> tuple[Seen, Any]:
    model, x = MODELS["ResNet-18"].build().to("sim:0"), noise(1, 3, 224, 224).to("sim:0")
    execution = Execution(incremental=tiles)
    explain(model, x, Occlusion(window=224, stride=224, score="logit"), target=[[7]])  # what is done once per model
    with counted() as seen:
        result = explain(model, x, TECHNIQUE, target=[[7]], execution=execution)
    return seen, result.provenance


@pytest.fixture
def estimates(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []
    weigh = launches.too_many

    def noted(program: Any, plan: Any, readings: Any, **rest: Any) -> str | None:
        found.append(launches.incremental(program, plan, readings, rest["images"], rest["size"]))
        return weigh(program, plan, readings, **rest)

    monkeypatch.setattr(launches, "too_many", noted)
    return found


@pytest.mark.parametrize("tiles", ["always", False])
def test_launches_and_waits(tiles: Any) -> None:
    seen, provenance = asked(tiles)
    assert provenance["engine"] == ("incremental" if tiles else "dense")
    assert seen.launches <= MOST[tiles], seen.launch_lines.most_common(10)
    own = [line for _, line in seen.lines if line.startswith("occlusion/")]
    assert len(own) <= bool(tiles), own  # the checks of the proof, read at once


def test_one_image_runs_dense_and_says_why(estimates: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    _, provenance = asked(True)
    assert provenance["engine"] == "dense"
    assert "more launches" in provenance["reason"]
    monkeypatch.setattr(launches, "SECONDS", 0.0)
    seen, provenance = asked(True)
    assert provenance["engine"] == "incremental"
    assert estimates[-1] == pytest.approx(seen.launches, rel=0.1)


def test_what_was_weighed_is_not_weighed_again(estimates: list[int]) -> None:
    model, x = small_cnn().to("sim:0"), noise(2, 3, 17, 23).to("sim:0")
    for images in (1, 1, 2, 2, 1):
        assert explain(model, x[:images], Occlusion(window=5, stride=3), target=0).provenance["engine"] == "dense"
    assert len(estimates) == 2


def test_a_proof_that_fails_is_read_once_and_says_what_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Proof, "told", lambda *_: torch.zeros((), dtype=torch.bool, device="sim:0"))
    model, x = small_cnn().to("sim:0"), noise(1, 3, 17, 23).to("sim:0")
    with counted() as seen:
        result = explain(model, x, Occlusion(window=5, stride=3), target=0, execution=Execution(incremental="always"))
    assert (result.provenance["engine"], result.provenance["reason"]) == ("dense", incremental.TOLD)
    assert sum("_settle" in line for _, line in seen.lines) == 1


class Split(nn.Module):
    """Begins on one device and ends on another."""

    def __init__(self) -> None:
        super().__init__()
        self.begin, self.end = nn.Conv2d(3, 6, 3).to("sim:0"), nn.Linear(6, 5).to("sim:1")

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.end(self.begin(x).relu().amax((2, 3)).to("sim:1"))
        return logits


@pytest.mark.parametrize("tiles", ["always", False])
def test_logits_may_lie_on_another_device(tiles: Any) -> None:
    x, technique = noise(2, 3, 17, 23), Occlusion(window=5, stride=3, score="logit")
    model = Split().eval()
    result = explain(model, x.to("sim:0"), technique, target=1, execution=Execution(incremental=tiles))
    assert result.provenance["engine"] == ("incremental" if tiles else "dense")
    begin, end = copy.deepcopy(model.begin).cpu(), copy.deepcopy(model.end).cpu()
    plain = nn.Sequential(begin, nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), end)
    truth = explain(plain, x, technique, target=1, execution=Execution(incremental=False))
    assert (result.map.cpu() - truth.map).abs().max() < 1e-5 * truth.extras["largest_score"].max()
