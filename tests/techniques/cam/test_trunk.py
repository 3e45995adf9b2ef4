"""The closed form of Ablation-CAM is proved from the layer on, where the model is the same from there on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import AblationCAM, Attribution, Execution, explain
from attribution_hooks.cam import ablations
from attribution_hooks.cam.trunk import Trunk
from tests.conftest import noise
from tests.techniques.cam.nets import CLASSES, Case
from tests.techniques.cam.test_ablation_cam import exact
from tests.techniques.cam.test_any_layer import agree, classes

X = noise(3, 3, 7, 9, dtype=torch.float64)
EVERY = classes([[*range(CLASSES)]] * 3)


class Stem(nn.Conv2d):
    """Counts the rows that it is shown."""

    rows = 0

    def forward(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        return super().forward(x)


class Net(nn.Module):
    """A stem, another module, the layer, a mean and a linear layer; ``also`` has the last word."""

    def __init__(self, also: "Also") -> None:
        super().__init__()
        self.stem, self.beside, self.conv = Stem(3, 4, 3), nn.Linear(4, CLASSES), nn.Conv2d(4, 5, 3)
        self.relu, self.head, self.also = nn.ReLU(), nn.Linear(5, CLASSES), also

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(x)
        first = self.beside(stem.mean((2, 3)))
        a = self.relu(self.conv(stem))
        return self.also(self, a, self.head(a.mean((2, 3))), first)


Also = Callable[[Net, Tensor, Tensor, Tensor], Tensor]


def net(also: Also = lambda net, a, logits, first: logits) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(3)
        return Net(also).double().eval()


CASE = Case(net, (3, 7, 9), "relu", lambda a: a[0].flatten(1), (3, 5))


def answered(model: nn.Module, x: Tensor = X, **how: Any) -> Attribution:
    return explain(model, x, AblationCAM(layers=("relu",), relu=False), target="all", **how)


@pytest.mark.parametrize("examples", [1, 3])
def test_what_runs_before_the_layer_runs_once(examples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    model, forward = net(), Stem.forward
    answered(model, X[:examples])

    def counting(self: Stem, given: Tensor) -> Tensor:
        counted.append(len(given))
        return forward(self, given)

    monkeypatch.setattr(Stem, "forward", counting)
    result = answered(model, X[:examples])
    assert sum(counted) == examples
    assert result.provenance["engine relu"] == "closed form"
    assert agree(result.raw["relu"], exact(CASE, net(), X[:examples], EVERY))
    counted.clear()
    small = answered(model, X[:examples], execution=Execution(memory_budget=1))
    assert sum(counted) == examples + examples + 1, "where nothing can be kept, the proof is whole forwards"
    assert agree(small.raw["relu"], result.raw["relu"])


def test_modules_that_must_run_are_found_out() -> None:
    """The tail asks whether the stem ran. Then the proof goes through the whole model, and the closed form holds."""
    seen: list[int] = []

    def word(model: Net, a: Tensor, logits: Tensor, first: Tensor) -> Tensor:
        again, model.told = model.stem.rows > getattr(model, "told", 0), model.stem.rows  # type: ignore[assignment]
        seen.append(int(again))
        return logits if again else logits + a.amax((2, 3)).square().sum(1, keepdim=True)

    result = answered(net(word))
    assert {0, 1} == set(seen), "the tail alone was tried"
    assert result.provenance["engine relu"] == "closed form"
    assert agree(result.raw["relu"], exact(CASE, net(), X, EVERY))


def recalled(model: Net, a: Tensor, logits: Tensor, first: Tensor) -> Tensor:
    """Where a channel is zero everywhere, a module that ran before the layer is asked about the layer."""
    zero = (a.flatten(2).amax(2) == 0).any(1, keepdim=True)
    return logits + zero * (model.beside(a.mean((2, 3))[:, :4]) - first) if bool(zero.any()) else logits


def test_from_the_layer_on_each_module_is_the_models_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """``beside`` ran once when the model was surveyed, before the layer; with a channel set to zero it runs again."""
    wanted = exact(CASE, net(recalled), X, EVERY)
    result = answered(net(recalled))
    assert agree(result.raw["relu"], wanted)
    assert result.provenance["engine relu"] == "tail"
    assert not agree(exact(CASE, net(), X, EVERY), wanted), "it is no closed form"
    plain = Trunk.left_out

    @contextmanager
    def to_the_end(self: Trunk, values: Tensor, rows: int) -> Iterator[None]:
        with plain(self, values, rows):
            for module, output in self._ended.items():
                vars(module)["forward"] = lambda *_, output=output: output.clone()
            yield

    monkeypatch.setattr(Trunk, "left_out", to_the_end)
    assert not agree(answered(net(recalled)).raw["relu"], wanted)


def test_the_proof_was_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def bonus(model: Net, a: Tensor, logits: Tensor, first: Tensor) -> Tensor:
        return logits + (a.flatten(2).amax(2) == 0).any(1, keepdim=True)

    wanted = exact(CASE, net(bonus), X, EVERY)
    assert agree(answered(net(bonus)).raw["relu"], wanted)
    monkeypatch.setattr(ablations, "_behind", lambda run, seen, *_: seen.matrix[[0, *range(len(seen.matrix))]])
    monkeypatch.setattr(ablations, "alike", lambda *_: True)
    assert not agree(answered(net(bonus)).raw["relu"], wanted)


def test_nothing_is_left_on_the_model() -> None:
    model = net()
    answered(model)
    assert not any("forward" in vars(module) or module._forward_hooks for module in model.modules())
