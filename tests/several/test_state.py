"""Several techniques of a model that changes by being run: each is asked of the model as a call of its own is."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import (
    Activations,
    Execution,
    GradCAM,
    GradientSHAP,
    InputXGradient,
    IntegratedGradients,
    LayerCAM,
    Saliency,
    SmoothGrad,
    Technique,
    explain,
    explain_many,
)
from attribution.inputs.inputs import as_inputs
from attribution.layers import trace
from attribution.testing import guard
from attribution_hooks.cam.family import CamAttributor
from tests.conftest import BACKENDS, build, noise
from tests.several.asked import alone, unlike

ASKED: dict[str, Technique] = {
    "cam": GradCAM(layers=("net.body",)),
    "other cam": LayerCAM(layers=("net.body",)),
    "gradient": Saliency(),
    "product": InputXGradient(),
    "line": IntegratedGradients(steps=3),
    "same line": IntegratedGradients(steps=3, channels="sum"),
    "noise": SmoothGrad(samples=3),
    "shap": GradientSHAP(samples=3, baselines=0.5),
    "same shap": GradientSHAP(samples=3, baselines=0.5, channels="max"),
    "values": Activations(layers=("net.body",)),
}


class Changes(nn.Module):
    """Each forward says something else than the last; a subclass says where the count is."""

    def __init__(self) -> None:
        super().__init__()
        self.net = build("cnn")

    def count(self) -> Any:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Any:
        return self.net(x * (1 + 0.25 * self.count()))


class InABuffer(Changes):
    def __init__(self) -> None:
        super().__init__()
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(()))

    def count(self) -> Any:
        self.seen.add_(1)
        return self.seen.item()


class InANumber(Changes):
    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def count(self) -> Any:
        self.seen += 1
        return self.seen


class InATensor(Changes):
    def __init__(self) -> None:
        super().__init__()
        self.seen = torch.zeros(())

    def count(self) -> Any:
        self.seen.add_(1)
        return self.seen.item()


class InADict(Changes):
    def __init__(self) -> None:
        super().__init__()
        self.seen = {"deep": [0]}

    def count(self) -> Any:
        self.seen["deep"][0] += 1
        return self.seen["deep"][0]


class Guarded(InANumber):
    """Cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class Drops(Changes):
    """Draws in eval mode too."""

    def count(self) -> Any:
        return torch.rand(()).item()


def _note(seen: dict[str, int], module: nn.Module, args: Any) -> Any:
    seen["count"] += 1
    return (args[0] * (1 + 0.25 * seen["count"]),)


class Hooked(Changes):
    """A hook counts, in a dict that it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.net.register_forward_pre_hook(partial(_note, {"count": 0}))

    def forward(self, x: Tensor) -> Any:
        return self.net(x)


MODELS: tuple[Callable[[], nn.Module], ...] = (InABuffer, InANumber, InATensor, InADict, Guarded, Drops, Hooked)


@BACKENDS
@pytest.mark.parametrize("made", MODELS)
def test_each_is_asked_of_the_model_as_it_was(made: Callable[[], nn.Module], backend: str) -> None:
    model, inputs = made().eval(), noise(3, 3, 17, 23)
    torch.manual_seed(5)
    singles = {name: alone(model, inputs, each, 1, backend=backend) for name, each in ASKED.items()}
    for asked in (ASKED, dict(reversed(ASKED.items()))):
        with guard(model, inputs):
            found = explain_many(model, inputs, asked, backend=backend, target=1)
        assert not {name: each for name in asked if (each := unlike(found[name], singles[name]))}


@pytest.mark.parametrize("made", MODELS)
def test_those_that_fail_together_are_asked_alike(
    made: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in several parts, of which the last fails."""
    model, inputs, execution = made().eval(), noise(3, 3, 17, 23), Execution(batch_size=2)
    asked = {name: ASKED[name] for name in ("gradient", "cam", "other cam")}
    torch.manual_seed(5)
    singles = {name: alone(model, inputs, each, 1, execution=execution) for name, each in asked.items()}
    shared = CamAttributor.compute_many.__func__  # type: ignore[attr-defined]

    def fails(cls: Any, asked: Any) -> Any:
        maps = shared(cls, asked)
        if len(asked) > 1 and len(asked[0][1].inputs) == 1:
            raise ValueError("not these together")
        return maps

    monkeypatch.setattr(CamAttributor, "compute_many", classmethod(fails))
    found = explain_many(model, inputs, asked, target=1, execution=execution)
    assert not {name: each for name in asked if (each := unlike(found[name], singles[name]))}
    told = {name: str(found[name].provenance["pass"]) for name in asked}
    assert told["gradient"] == "its own"
    for name in ("cam", "other cam"):
        assert told[name] == "its own, since together they fail: ValueError: not these together"


@BACKENDS
@pytest.mark.parametrize("made", [made for made in MODELS if made is not Drops])
def test_a_look_at_the_model_in_the_middle_of_a_call_does_not_count(
    made: Callable[[], nn.Module], backend: str
) -> None:
    """The survey of a model's layers, which is kept: a second call has none, and the first has it after a forward."""
    model, inputs = made().eval(), noise(3, 3, 17, 23)
    asked = GradCAM(layers=("net.stem",), relu=False)
    one = Execution(batch_size=1)
    first, second = (explain(model, inputs, asked, backend=backend, target="all", execution=one) for _ in range(2))
    assert not unlike(first, second)


def test_a_survey_gives_back_what_it_found() -> None:
    model, inputs = InANumber().eval(), noise(1, 3, 17, 23)
    model(inputs)
    before = model.seen
    trace.first_forward(model, as_inputs(inputs))
    assert model.seen == before == 1
