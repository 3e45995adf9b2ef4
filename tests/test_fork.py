"""A process may fork while a thread explains a guarded model: the child's locks are its own."""

import multiprocessing
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import GradCAM, explain
from attribution.isolation.context import isolated
from attribution.isolation.torch_modes import modes
from attribution.running.execution import Execution
from attribution.testing.footprint.snapshot import Snapshot
from tests.conftest import noise

X = noise(1, 3, 9, 11)

if "fork" not in multiprocessing.get_all_start_methods():
    pytest.skip("no fork here", allow_module_level=True)


class Locked(nn.Module):
    """Runs itself, since a lock cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)
        self.lock = threading.Lock()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(self.conv(x)).relu().mean((2, 3)))  # type: ignore[no-any-return]


def forked(work: Callable[[], Any]) -> Any:
    """What work gives in a child of this process; ``None`` where it does not end."""
    context = multiprocessing.get_context("fork")
    mine, yours = context.Pipe()

    def child() -> None:
        torch.set_num_threads(1)
        yours.send(work())

    process = context.Process(target=child)
    process.start()
    found = mine.recv() if mine.poll(60) else None
    if found is None:
        process.kill()
    process.join()
    return found


def beside(block: Any) -> tuple[threading.Thread, threading.Event]:
    """A thread that is inside a block until it is told to leave."""
    inside, leave = threading.Event(), threading.Event()

    def work() -> None:
        with block:
            inside.set()
            leave.wait(120)

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(60)
    return thread, leave


def test_a_child_explains_while_the_parents_thread_holds_the_lock() -> None:
    model, other = Locked().train(), Locked().train()
    expected = explain(model, X, GradCAM(layers=("conv",)), target=1).scores
    before = Snapshot(model)
    thread, leave = beside(isolated(model))

    def work() -> list[str]:
        left = [str(change) for change in before.changes() if change.field not in ("process", "random")]
        explain(other, X, GradCAM(layers=("conv",)), target=1)
        scores = explain(model, X, GradCAM(layers=("conv",)), target=1).scores
        assert scores is not None
        assert expected is not None
        return left + ([] if torch.equal(scores, expected) else ["another score"])

    try:
        assert before.changes(), "the thread is in a run, so the model is not as it was"
        found = forked(work)
    finally:
        leave.set()
        thread.join()
    assert found == []
    assert not before.changes()


def test_a_flag_that_another_threads_run_had_set() -> None:
    thread, leave = beside(modes(Execution(deterministic=True), torch.device("cpu")))

    def work() -> list[bool]:
        found = [torch.are_deterministic_algorithms_enabled()]
        with modes(Execution(deterministic=True), torch.device("cpu")):
            found.append(torch.are_deterministic_algorithms_enabled())
        return [*found, torch.are_deterministic_algorithms_enabled()]

    try:
        found = forked(work)
    finally:
        leave.set()
        thread.join()
    assert found == [False, True, False]
    assert not torch.are_deterministic_algorithms_enabled()
