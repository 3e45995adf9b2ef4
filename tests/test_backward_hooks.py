"""Backward hooks of the user's run where there is a gradient; their errors, and a training beside, are named."""

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import Activations, FilterVisualization, GradCAM, ModelError, Occlusion, Technique, available, explain
from attribution.testing import guard
from tests.conftest import noise

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")

X = noise(2, 3, 9, 11)
QUESTIONS: dict[str, list[Technique]] = {
    "activations": [Activations(layers=("b",))],
    "grad_cam": [GradCAM(layers=("b",)), GradCAM(layers=("act",)), GradCAM(layers=("a", "act", "b"))],
    "occlusion": [Occlusion(window=5, stride=4)],
    "filter_visualization": [
        FilterVisualization(layer="b", channels=(0, 1), steps=2, size=9),
        FilterVisualization(layer="logits", channels=(0, 1), steps=2, size=9),
    ],
}
ASKED = [(pair, question) for pair in available() for question in QUESTIONS.get(pair[0], ())]
EVERY = pytest.mark.parametrize(("pair", "question"), ASKED)


class Net(nn.Module):
    def __init__(self, *, lock: bool = False) -> None:
        super().__init__()
        source = torch.Generator().manual_seed(0)
        self.a, self.act, self.b, self.fc = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.Linear(6, 5)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=source))
        if lock:
            self.lock = threading.Lock()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.b(self.act(self.a(x))).relu().mean((2, 3)))  # type: ignore[no-any-return]


def ask(model: nn.Module, pair: tuple[str, str], question: Technique, target: Any = 1) -> dict[str, Tensor]:
    inputs = X if question.needs_inputs else None
    return dict(
        explain(model, inputs, question, backend=pair[1], target=target if question.needs_target else None).maps
    )


def read(module: nn.Module, *gradients: Any) -> None:
    assert all(each[0].norm().isfinite() for each in gradients)


@EVERY
@pytest.mark.parametrize("lock", [False, True], ids=["shadow", "guarded"])
def test_hooks_that_read_the_gradient_of_the_input(pair: tuple[str, str], question: Technique, lock: bool) -> None:
    expected = ask(Net().eval(), pair, question)
    for name in ("a", "act", "b", "fc", ""):
        model = Net(lock=lock).eval()
        module = model.get_submodule(name)
        module.register_full_backward_hook(read)
        module.register_full_backward_pre_hook(read)
        with guard(model, X):
            found = ask(model, pair, question)
        assert all(torch.allclose(found[key], map_, atol=1e-6) for key, map_ in expected.items()), name


@pytest.mark.parametrize("backend", ["hooks", "captum"])
@pytest.mark.parametrize("target", [1, "all"])
def test_hooks_that_change_gradients_are_heard(backend: str, target: Any) -> None:
    model = Net().eval()
    plain = ask(model, ("grad_cam", backend), GradCAM(layers=("b",), relu=False), target)["b"]

    def twice(module: nn.Module, into: Any, out: Any) -> Any:
        return (2 * into[0],)

    model.fc.register_full_backward_hook(twice)
    found = ask(model, ("grad_cam", backend), GradCAM(layers=("b",), relu=False), target)["b"]
    assert torch.allclose(found, 2 * plain)


@pytest.mark.parametrize("backend", ["hooks", "captum"])
@pytest.mark.parametrize("lock", [False, True], ids=["shadow", "guarded"])
@pytest.mark.parametrize("add", [nn.Module.register_full_backward_hook, nn.Module.register_full_backward_pre_hook])
def test_a_hook_that_fails_is_named(backend: str, lock: bool, add: Any) -> None:
    def fail(module: nn.Module, *gradients: Any) -> None:
        raise AttributeError("no such thing")

    model = Net(lock=lock).eval()
    add(model.fc, fail)
    with pytest.raises(ModelError, match=r"backward hook on a Linear.*AttributeError: no such thing") as caught:
        ask(model, ("grad_cam", backend), GradCAM(layers=("b",)))
    assert isinstance(caught.value.__cause__, AttributeError)
    assert vars(model.fc)["_backward_hooks"] or vars(model.fc)["_backward_pre_hooks"]


@pytest.mark.parametrize("backend", ["hooks", "captum"])
@pytest.mark.parametrize("lock", [False, True], ids=["shadow", "guarded"])
def test_a_training_in_another_thread_is_named(backend: str, lock: bool) -> None:
    class Trained(Net):
        """Between the forward of its head and the backward, another thread makes a step."""

        step = False

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.fc(self.b(self.act(self.a(x))).mean((2, 3)) ** 2)
            if self.step:
                thread = threading.Thread(target=steps, args=(0.5,))
                thread.start()
                thread.join()
            return logits

    model = Trained(lock=lock).eval()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)

    def steps(lr: float) -> None:
        optimiser.step()

    model.step = True
    with pytest.raises(ModelError, match="another thread trains it"):
        ask(model, ("grad_cam", backend), GradCAM(layers=("b",)))


@pytest.mark.parametrize("backend", ["hooks", "captum"])
def test_an_operation_in_place_is_no_training(backend: str) -> None:
    class InPlace(Net):
        def forward(self, x: Tensor) -> Tensor:
            y = self.b(self.act(self.a(x))).sigmoid()
            z = self.fc(y.mean((2, 3)))
            y.mul_(2)
            return z  # type: ignore[no-any-return]

    with pytest.raises(ModelError, match="in-place operation overwrites"):
        ask(InPlace().eval(), ("grad_cam", backend), GradCAM(layers=("a",)))
