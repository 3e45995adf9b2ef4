"""Occlusion of ResNet-18 at 224 px, window 40, stride 20: what it launches, and where it waits."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import Execution, Occlusion, explain, registry
from attribution.testing import small_cnn
from attribution_hooks.incremental import differences as incremental
from attribution_hooks.incremental import launches
from attribution_hooks.incremental.proof import Proof
from benchmarks.models import MODELS
from tests.conftest import logit, noise
from tests.simulated_device.counted import Seen, counted

TECHNIQUE = Occlusion(window=40, stride=20)
MOST = {"incremental": 1900, "dense": 240, "dense, weighed": 290}
"""Launches of one image; 15,000 and 830 with one operation per window and per index. Weighing traces the model."""


PLACES = (
    "perturbation/",
    "incremental/",
    "attribution_hooks/chunks.py",
    "attribution_hooks/covers.py",
    "running/upload.py",
)
"""Where occlusion by hooks stands."""


def asked(technique: Occlusion = TECHNIQUE, tiles: bool = True) -> tuple[Seen, Any]:
    model, x = MODELS["ResNet-18"].build().to("sim:0"), noise(1, 3, 224, 224).to("sim:0")
    explain(model, x, Occlusion(window=224, stride=224), target=logit([[7]]))  # what is done once per model
    with counted() as seen:
        result = explain(model, x, technique, target=logit([[7]]), execution=Execution(incremental=tiles))
    return seen, result.provenance


def waits_of_occlusion(seen: Seen) -> list[str]:
    """Also for what it sends to the device."""
    return [line for _, line in seen.lines if line.startswith(PLACES)]


@pytest.fixture
def estimates(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []
    weigh = launches.too_many

    def noted(program: Any, plan: Any, readings: Any, **rest: Any) -> str | None:
        found.append(launches.incremental(program, plan, readings, rest["images"], rest["size"]))
        return weigh(program, plan, readings, **rest)

    monkeypatch.setattr(launches, "too_many", noted)
    return found


def test_the_places_are_there() -> None:
    """Else no wait would be found in them."""
    folders = Path(registry.__file__).parent, Path(incremental.__file__).parents[1]
    files = {"/".join(path.parts[-2:]) for folder in folders for path in folder.rglob("*.py")}
    assert [place for place in PLACES if not any(file.startswith(place) for file in files)] == []


def test_one_image_runs_dense_and_says_why() -> None:
    seen, provenance = asked()
    assert provenance["engine"] == "dense"
    assert "more launches" in provenance["reason"]
    assert provenance["windows_per_forward"] == len(TECHNIQUE.lattice(224, 224).windows) == 121
    assert seen.launches <= MOST["dense, weighed"], seen.launch_lines.most_common(10)
    assert waits_of_occlusion(seen) == []


def test_windows_that_go_together_launch_no_more_and_wait_for_nothing() -> None:
    """Few of them: those of one forward launch as much however many they are."""
    few = Occlusion(window=80, stride=80)
    seen, provenance = asked(few, tiles=False)
    assert (provenance["engine"], provenance["windows_per_forward"]) == ("dense", len(few.lattice(224, 224).windows))
    assert seen.launches <= MOST["dense"], seen.launch_lines.most_common(10)
    assert waits_of_occlusion(seen) == []


def test_tiles_launch_and_wait_no_more_and_as_often_as_was_weighed(
    estimates: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launches, "SECONDS", 0.0)
    seen, provenance = asked()
    assert provenance["engine"] == "incremental"
    assert seen.launches <= MOST["incremental"], seen.launch_lines.most_common(10)
    assert estimates[-1] == pytest.approx(seen.launches, rel=0.1)
    waits = waits_of_occlusion(seen)
    assert len(waits) <= 1, waits  # the checks of the proof, read at once


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
    x, technique = noise(2, 3, 17, 23), Occlusion(window=5, stride=3)
    model = Split().eval()
    result = explain(model, x.to("sim:0"), technique, target=logit(1), execution=Execution(incremental=tiles))
    assert result.provenance["engine"] == ("incremental" if tiles else "dense")
    begin, end = copy.deepcopy(model.begin).cpu(), copy.deepcopy(model.end).cpu()
    plain = nn.Sequential(begin, nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), end)
    truth = explain(plain, x, technique, target=logit(1), execution=Execution(incremental=False))
    assert (result.map.cpu() - truth.map).abs().max() < 1e-5 * truth.extras["largest_score"].max()
