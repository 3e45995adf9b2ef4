"""Where all points fit into one forward of a device, the clean inputs and baselines are rows of it."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import Attribution, Execution, GradientSHAP, IntegratedGradients, SmoothGrad, Technique, explain
from attribution.testing import small_residual
from attribution_hooks import chunks
from attribution_hooks.gradient import sums
from tests.conftest import noise

TARGETS = [[1, 3], [0, 2], [4, 1]]
SHAPE = (3, 3, 9, 11)
QUESTIONS: dict[str, Technique] = {
    "line": IntegratedGradients(steps=5, baseline=0.3),
    "noise": SmoothGrad(samples=4, statistic="variance"),
    "paths": GradientSHAP(samples=4, baselines=noise(2, *SHAPE[1:], dtype=torch.float64, seed=3), noise=0.1, seed=1),
}
ENDS = {"line": 1, "noise": 0, "paths": 2}
"""Beside the clean inputs."""


class Named(nn.Module):
    """Its output is no tensor, of which rows could be taken."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.net(x)}


def asked(model: nn.Module, question: str, device: str, **execution: Any) -> tuple[Attribution, list[int]]:
    """The answer, and the rows of each forward once the model is known."""
    model, x = copy.deepcopy(model).to(device), noise(*SHAPE, dtype=torch.float64).to(device)
    rows: list[int] = []
    model.register_forward_hook(lambda module, args, output: rows.append(len(args[0])))
    for _ in range(2):
        rows.clear()
        found = explain(model, x, QUESTIONS[question], target=TARGETS, execution=Execution(**execution))
    return found, rows


def off(found: Attribution, wanted: Attribution) -> float:
    """Of maps, scores and extras."""
    pairs = [(found.raw["input"], wanted.raw["input"]), (found.scores, wanted.scores)]
    pairs += [(found.extras[name], each) for name, each in wanted.extras.items() if name != "relative_gap"]
    return max(float((a.cpu() - b).abs().max()) for a, b in pairs if a is not None and b is not None)


@pytest.fixture
def net() -> nn.Module:
    return small_residual().double()


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("wrapped", [False, True], ids=["tensor", "mapping"])
def test_one_forward_says_what_several_say(question: str, wrapped: bool, net: nn.Module) -> None:
    model = Named(net) if wrapped else net
    found, rows = asked(model, question, "sim:0")
    wanted, several = asked(model, question, "cpu", batch_size=3)
    samples = QUESTIONS[question].samples  # type: ignore[attr-defined]
    assert rows == [3 * (samples + 1 + ENDS[question])] + [3] * wrapped
    assert len(several) == samples + 1 + ENDS[question]
    assert off(found, wanted) < 1e-12
    chunked, parts = asked(model, question, "sim:0", batch_size=6)
    assert len(parts) > 2
    assert off(chunked, wanted) < 1e-12


@pytest.mark.parametrize("question", QUESTIONS)
def test_points_go_in_parts_where_memory_ran_out(
    question: str, net: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = chunks.fits
    monkeypatch.setattr(sums, "fits", lambda work, part: own(_lacking, part))
    found, rows = asked(net, question, "sim:0")
    assert rows[: 1 + ENDS[question]] == [3] * (1 + ENDS[question])
    assert off(found, asked(net, question, "cpu")[0]) < 1e-12


def _lacking(part: Any) -> None:
    raise torch.OutOfMemoryError("on purpose")


def _turned(own: Callable[..., Any]) -> Callable[..., Any]:
    """A line whose clean inputs and ends changed places."""
    return lambda run, scored=(): own(run, [*scored[1:], *scored[:1]])


@pytest.mark.parametrize("question", ["line", "paths"])
def test_ends_in_another_order_are_noticed(question: str, net: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "_line", _turned(sums._line))
    found, _ = asked(net, question, "sim:0")
    assert off(found, asked(net, question, "cpu")[0]) > 1e-4
