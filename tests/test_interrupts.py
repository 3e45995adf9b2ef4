"""An interrupt may arrive between any two instructions: whatever the moment, nothing is left behind."""

import contextlib
import ctypes
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attribution
import attribution_captum
import attribution_hooks
from attribution import FilterVisualization, registry
from attribution import explain as explained
from attribution.isolation.known import known
from attribution.running.execution import Execution
from attribution.testing import small_residual
from attribution.testing.footprint.snapshot import Snapshot
from attribution.testing.models.attending import attending
from tests.cases import BACKENDS, OF_ATTENTION, PAIRS, all_placed, given, placed
from tests.conftest import noise

READERS = [pair for pair in OF_ATTENTION if pair[1] in BACKENDS]
"""Of attention, which the model is given for them."""

TECHNIQUES = all_placed({"stem": "net.stem", "body": "net.body"})
BLOCKS = {f"head.attention.{number}": f"net.head.attention.{number}" for number in range(2)}
TECHNIQUES |= {name: placed(registry.technique(name).example(), BLOCKS) for name, _ in READERS}
X = noise(2, 3, 17, 23)
EXECUTIONS = (Execution(), Execution(), Execution(batch_size=1, autocast=torch.bfloat16, deterministic=True))
_OURS = tuple(str(Path(str(m.__file__)).parent) for m in (attribution, attribution_hooks, attribution_captum))


class Counting(nn.Module):
    """Writes a buffer and an attribute, is partly in train mode, draws random numbers; with a lock it runs itself."""

    def __init__(self, *, lock: bool, attention: bool) -> None:
        super().__init__()
        self.net, self.seen = small_residual(), 0
        if attention:
            attending(self.net)
        self.register_buffer("calls", torch.zeros(()))
        self.net.get_submodule("body").train()
        if lock:
            self.lock = threading.Lock()

    def forward(self, x: Tensor) -> Tensor:
        self.get_buffer("calls").add_(1)
        self.seen += 1
        return self.net(x + 1e-3 * torch.rand_like(x))  # type: ignore[no-any-return]


def ask(model: nn.Module, pair: tuple[str, str], execution: Execution) -> None:
    technique = TECHNIQUES[pair[0]]
    inputs, target = given(technique, X)
    explained(model, inputs, technique, backend=pair[1], target=target, execution=execution)


class Tracer:
    """Counts the instructions of this package and of ``contextlib``, and interrupts at one of them."""

    def __init__(self, at: int = -1) -> None:
        self.at, self.count = at, 0

    def enter(self, frame: FrameType, event: str, argument: object) -> Any:
        name = frame.f_code.co_filename
        if not (name.startswith(_OURS) or name == contextlib.__file__):
            return None
        frame.f_trace_opcodes = True
        return self.step(frame, event, argument)

    def step(self, frame: FrameType, event: str, argument: object) -> Any:
        self.count += 1
        if self.count == self.at:
            sys.settrace(None)
            raise KeyboardInterrupt
        return self.step


def traced(at: int, work: Callable[[], None]) -> int:
    tracer, before = Tracer(at), sys.gettrace()
    try:
        sys.settrace(tracer.enter)
        work()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return tracer.count


class Case:
    """One attributor and one model, asked once so that all is imported."""

    def __init__(self, pair: tuple[str, str], *, lock: bool) -> None:
        self.pair, self.lock = pair, lock
        self.totals: dict[Execution, int] = {}
        self.renew()

    def renew(self) -> None:
        self.model = Counting(lock=self.lock, attention=self.pair in READERS).eval()
        self.model.net.get_submodule("body").train()
        ask(self.model, self.pair, EXECUTIONS[0])

    def total(self, execution: Execution) -> int:
        if execution not in self.totals:
            self.totals[execution] = traced(-1, lambda: ask(self.model, self.pair, execution))
        return self.totals[execution]

    def interrupted(self, source: random.Random) -> list[str]:
        """What one interrupt at a random instruction left behind."""
        execution, first = source.choice(EXECUTIONS), source.random() < 0.25
        total = self.total(execution)
        if first:  # a call that makes and proves its copy
            known.shadows.pop(self.model, None)
        with torch.inference_mode(source.random() < 0.25), torch.autocast("cpu", enabled=source.random() < 0.25):
            before = Snapshot(self.model, X)
            at = source.randint(1, total)
            traced(at, lambda: ask(self.model, self.pair, execution))
            found = [f"{self.pair}, lock {self.lock}, {at} of {total}: {change}" for change in before.changes()]
        return found + self.after()

    def after(self) -> list[str]:
        try:
            with torch.no_grad():
                self.model(X)
        except BaseException as error:
            return [f"{self.pair}: the model's own call raises {error!r}"]
        return []


def cases() -> list[Case]:
    return [Case(pair, lock=lock) for pair in [*PAIRS, *READERS] for lock in (False, True)]


def sweep(count: int, seed: int) -> list[str]:
    source, every, left = random.Random(seed), cases(), list[str]()
    for number in range(count):
        case = every[number % len(every)]
        found = case.interrupted(source)
        if found:
            left += found
            case.renew()
        elif number % (5 * len(every)) < len(every):
            ask(case.model, case.pair, EXECUTIONS[0])
    return left


SWALLOWED = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""Python reports an interrupt that arrives in the callback of a weak reference or in a generator's end, and goes on."""


@SWALLOWED
def test_interrupts_between_instructions() -> None:
    assert not sweep(128, seed=0)


@SWALLOWED
@pytest.mark.slow
def test_three_thousand_interrupts_between_instructions() -> None:
    assert not sweep(3000, seed=1)


def late(case: Case, source: random.Random) -> list[str]:
    """What an interrupt from another thread left behind: it arrives in torch's Python code too."""
    found: list[str] = []
    ready, leave = threading.Event(), threading.Event()

    def work() -> None:
        before = Snapshot(case.model, X)
        with contextlib.suppress(KeyboardInterrupt):
            try:
                ready.set()
                ask(case.model, case.pair, EXECUTIONS[0])
            finally:
                leave.set()
        with contextlib.suppress(KeyboardInterrupt):  # it may come only now
            time.sleep(0.001)
        found.extend(f"{case.pair}, lock {case.lock}: {change}" for change in before.changes())

    thread = threading.Thread(target=work)
    thread.start()
    ready.wait()
    time.sleep(source.random() * 0.03)
    if not leave.is_set():
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident or 0), ctypes.py_object(KeyboardInterrupt)
        )
    thread.join()
    return found + case.after()


def late_sweep(count: int, seed: int) -> list[str]:
    source, every, left = random.Random(seed), cases(), list[str]()
    for number in range(count):
        case = every[number % len(every)]
        if found := late(case, source):
            left += found
            case.renew()
    return left


@SWALLOWED
def test_interrupts_from_another_thread() -> None:
    assert not late_sweep(64, seed=0)


@SWALLOWED
@pytest.mark.slow
def test_a_thousand_interrupts_from_another_thread() -> None:
    assert not late_sweep(1000, seed=1)


def test_an_interrupt_after_a_hook_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handle never arrives where it would be kept."""
    real = nn.Module.register_forward_pre_hook

    def late_return(module: nn.Module, hook: Any, **options: Any) -> Any:
        handle = real(module, hook, **options)
        if hook.__name__ == "stop":
            raise KeyboardInterrupt
        return handle

    class Two(nn.Module):
        def __init__(self, *, lock: bool) -> None:
            super().__init__()
            self.c, self.d = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
            if lock:
                self.lock = threading.Lock()

        def forward(self, x: Tensor) -> Tensor:
            return self.d(self.c(x).relu()).mean((2, 3))  # type: ignore[no-any-return]

    question = FilterVisualization.notebook(layer="d", channels=(0,), steps=3, size=16)
    for lock in (False, True):
        model = Two(lock=lock).eval()
        expected = explained(model, None, question).map
        before = Snapshot(model)
        with monkeypatch.context() as patch:
            patch.setattr(nn.Module, "register_forward_pre_hook", late_return)
            with pytest.raises(KeyboardInterrupt):
                explained(model, None, question)
        assert not before.changes()
        model(noise(1, 3, 16, 16))
        assert torch.equal(explained(model, None, question).map, expected)
