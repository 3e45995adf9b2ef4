"""Models that run themselves, and flags of the process: all is given back, also where threads overlap."""

import threading

import pytest
import torch
from torch import Tensor, nn

from attribution import Activations, GradCAM, LayerError
from attribution import explain as explained
from attribution.isolation.context import isolated
from attribution.isolation.torch_modes import modes
from attribution.running.execution import Execution
from attribution.testing import guard
from tests.models.stateful import Base, X


class Writing(Base):
    """Runs itself (a lock cannot be copied), and leaves traces wherever it can."""

    def __init__(self) -> None:
        super().__init__()
        self.lock, self.seen, self.last = threading.Lock(), list[Tensor](), dict[str, Tensor]()
        self.register_buffer("count", torch.zeros(()))

    def after(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        self.last["x"] = x
        self.get_buffer("count").data.add_(1)
        if not hasattr(self, "late"):
            self.late = nn.Identity()
        weight = self.conv.weight
        del self.conv.weight
        self.conv.weight = weight
        y: Tensor = self.late(x)
        return y


def test_a_guarded_model_gets_everything_back() -> None:
    model = Writing().eval()
    order = [*model.state_dict()]
    with guard(model, X):
        result = explained(model, X, GradCAM(layers=("conv",)), target=0)
    assert result.provenance["isolation"] == "guarded"
    assert [*model.state_dict()] == order
    assert not model.seen


class Repeating(Base):
    def __init__(self) -> None:
        super().__init__()
        self.lock, self.times = threading.Lock(), 1

    def after(self, x: Tensor) -> Tensor:
        for _ in range(self.times - 1):
            x = self.conv(x[:, :3])
        return x


def test_what_a_guarded_model_runs_is_looked_at_anew() -> None:
    model = Repeating().eval()
    explained(model, X, Activations(layers=("conv",)))
    model.times = 2
    with pytest.raises(LayerError, match="runs 2 times"):
        explained(model, X, Activations(layers=("conv",)))


def test_two_guarded_models_that_share_a_part() -> None:
    part = Repeating().train()

    class Whole(Repeating):
        def __init__(self) -> None:
            super().__init__()
            self.part = part

    whole, inside, leave = Whole().train(), threading.Event(), threading.Event()

    def first() -> None:
        with isolated(whole):
            inside.set()
            leave.wait(0.5)

    def second() -> None:
        inside.wait(10)
        with isolated(part):
            leave.set()

    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(module.training for module in whole.modules())


def test_deterministic_runs_that_overlap() -> None:
    execution, device = Execution(deterministic=True), torch.device("cpu")
    inside, overlapped, left = (threading.Event() for _ in range(3))
    found: list[bool] = []

    def first() -> None:
        with modes(execution, device):
            inside.set()
            overlapped.wait(10)
        left.set()

    def second() -> None:
        inside.wait(10)
        with modes(execution, device):
            overlapped.set()
            left.wait(10)
            found.append(torch.are_deterministic_algorithms_enabled())

    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True]
    assert not torch.are_deterministic_algorithms_enabled()
