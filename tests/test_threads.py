"""Four threads ask about one model while a fifth runs it: each gets the bits that it gets alone."""

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from attribution import Attributor, FilterVisualization, Run, available, registry
from attribution.technique import Maps
from attribution.testing import small_residual
from attribution.testing.threads import together
from tests.cases import PAIRS, SOME_PAIRS, TECHNIQUES, given
from tests.conftest import noise
from tests.testing.planted import HonestActivations

THREADS = 4


def asking(cls: type[Attributor[Any]], model: nn.Module, number: int) -> Callable[[], Maps]:
    """One thread's own question: its images and class, or its start."""
    technique = TECHNIQUES[cls.technique_type.name]
    if isinstance(technique, FilterVisualization):
        technique = replace(technique, seed=number)
    inputs, target = given(technique, noise(1, 3, 17, 23, seed=number), number)
    return lambda: dict(cls(model, technique).attribute(inputs, target).raw)


def race(cls: type[Attributor[Any]], calls: int) -> tuple[int, int, list[BaseException]]:
    """Wrong answers to ``calls`` questions, outputs of a fifth thread that changed meanwhile, and errors."""
    model, foreign = small_residual(), noise(2, 3, 17, 23, seed=9)
    asked = [asking(cls, model, number) for number in range(THREADS)]
    alone = [ask() for ask in asked]
    with torch.no_grad():
        output = model(foreign)
    wrong: list[int] = []
    changed: list[Tensor] = []
    ended: list[int] = []

    def explain(number: int) -> None:
        try:
            for _ in range(calls // THREADS):
                found = asked[number]()
                if found.keys() != alone[number].keys() or any(
                    not torch.equal(map_, alone[number][key]) for key, map_ in found.items()
                ):
                    wrong.append(number)
        finally:
            ended.append(number)

    def run() -> None:
        with torch.no_grad():
            while len(ended) < THREADS:
                try:
                    found = model(foreign)
                except RuntimeError as error:  # of `Open`, which hooks into a model that runs
                    if cls is not Open or "mutated during iteration" not in str(error):
                        raise
                    continue
                if not torch.equal(found, output):
                    changed.append(found)

    errors = together(run, *(partial(explain, number) for number in range(THREADS)))
    return len(wrong), len(changed), errors


@pytest.mark.parametrize("pair", SOME_PAIRS)
@pytest.mark.parametrize("calls", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_every_thread_gets_its_own_answer(pair: tuple[str, str], calls: int) -> None:
    assert race(registry.get(*pair), calls) == (0, 0, [])


class Shared(HonestActivations):
    """Keeps what it caught where every thread keeps it, as a hook does that does not ask which thread it runs in."""

    caught: ClassVar[Maps] = {}
    meeting: ClassVar[threading.Barrier] = threading.Barrier(THREADS, timeout=60)

    def compute(self, run: Run[Any]) -> Maps:
        self.caught.update(super().compute(run))
        if threading.current_thread() is not threading.main_thread():
            self.meeting.wait()
        maps = dict(self.caught)
        if threading.current_thread() is not threading.main_thread():
            self.meeting.wait()
        return maps


class Open(HonestActivations):
    """Works on the user's own model, until somebody else has run it."""

    def compute(self, run: Run[Any]) -> Maps:
        if threading.current_thread() is not threading.main_thread():
            ran = threading.Event()

            def double(module: nn.Module, args: Any, output: Tensor) -> Tensor:
                ran.set()
                return 2 * output

            handle = self.model.get_submodule("head").register_forward_hook(double)
            ran.wait(60)
            handle.remove()
        return super().compute(run)


def test_shared_captures_are_caught() -> None:
    wrong, changed, errors = race(Shared, THREADS)
    assert (wrong, changed, errors) == (THREADS - 1, 0, [])


def test_hooks_on_the_users_model_are_caught() -> None:
    _, changed, _ = race(Open, THREADS)
    assert changed > 0


def test_many_threads_find_one_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin whose import takes its time is imported once, and the built-in ones are what they were."""
    info = tmp_path / "slow_cam-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: slow-cam\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\ngrad_cam.slow = slow_cam_of_a_test:Slow\n")
    (tmp_path / "slow_cam_of_a_test.py").write_text(
        "import time\n"
        "from attribution import Attributor, GradCAM\n"
        "time.sleep(0.05)\n"
        "class Slow(Attributor):\n"
        "    technique_type, backend = GradCAM, 'slow'\n"
        "    def compute(self, run): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    before = {pair: registry.get(*pair) for pair in PAIRS}
    found: list[type[Attributor[Any]]] = []
    names: list[list[tuple[str, str]]] = []

    def look() -> None:
        names.append(available())
        found.append(registry.get("grad_cam", "slow"))

    assert together(*[look] * 8) == []
    assert len(found) == 8
    assert len({*found}) == 1
    assert all(each == names[0] for each in names)
    assert {pair: registry.get(*pair) for pair in PAIRS} == before
