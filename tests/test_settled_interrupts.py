"""An interrupt between any two instructions of a call that repeats a question inside of ``prepared``."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from attribution import Activations, GradCAM, Technique, explain, prepared
from attribution import calls as answering
from attribution.isolation.context import hold_again
from attribution.running.execution import Execution
from attribution.testing.footprint.snapshot import Snapshot
from tests.test_interrupts import SWALLOWED, Counting, X, traced

TECHNIQUES: list[Technique] = [Activations(layers=("net.body",)), GradCAM(layers=("net.body",))]
EXECUTION = Execution()
STEPS = 96
"""Interrupts for each technique, spread over the instructions of a call."""


class Drawing(Counting):
    """Sets no attribute, which would end the block with an error."""

    def forward(self, x: Tensor) -> Tensor:
        self.get_buffer("calls").add_(1)
        return self.net(x + 1e-3 * torch.rand_like(x))  # type: ignore[no-any-return]


def _left(technique: Technique, *, steps: int = STEPS) -> Iterator[str]:
    """What is found changed after each interrupt, and where the next answer is another."""
    model = Drawing(lock=False, attention=False).eval()
    asked: dict[str, Any] = {"target": 1} if technique.needs_target else {}

    def once() -> None:
        explain(model, X, technique, execution=EXECUTION, **asked)

    def ask() -> Tensor:
        torch.manual_seed(5)
        return explain(model, X, technique, execution=EXECUTION, **asked).map

    with prepared(model), torch.no_grad():
        plain, _ = ask(), ask()
        total = traced(-1, once)
        for at in range(1, total, max(1, total // steps)):
            torch.manual_seed(5)
            before = Snapshot(model, X)
            traced(at, once)
            yield from (f"{at} of {total}: {change}" for change in before.changes())
            if not torch.equal(ask(), plain):
                yield f"{at} of {total}: another answer"
            ask()  # of the copy that was made since: the next call repeats


@SWALLOWED
@pytest.mark.parametrize("technique", TECHNIQUES, ids=lambda each: each.name)
def test_interrupts_in_a_repeated_call(technique: Technique) -> None:
    assert [*_left(technique)] == []


@SWALLOWED
def test_a_mode_that_nobody_gives_back_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "leave", lambda *noted: None)
    assert any("grad" in change for change in _left(TECHNIQUES[0], steps=8))


@SWALLOWED
def test_a_copy_that_serves_after_an_interrupt_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []

    def held(undo: object, model: object, shadow: object) -> bool:
        found.append(shadow.busy)  # type: ignore[attr-defined]
        return hold_again(undo, model, shadow)  # type: ignore[arg-type]

    monkeypatch.setattr(answering, "hold_again", held)
    assert [*_left(TECHNIQUES[0], steps=8)] == []
    assert any(found)  # the copy was not taken: another was made
