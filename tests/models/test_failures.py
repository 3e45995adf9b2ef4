"""Whatever a model, a hook on it or its backward raises is named as what it is; an attributor's own fault stays one."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import (
    Activations,
    AttributionError,
    FilterVisualization,
    GradCAM,
    ModelError,
    Occlusion,
    Technique,
    explain,
)
from attribution.attributor import Attributor, Run
from attribution.technique import Maps
from attribution.testing import guard
from tests.cases import SOME_PAIRS
from tests.conftest import noise
from tests.models.kinds import PAIRS, TECHNIQUES, ask

X = noise(2, 3, 17, 23)
EVERY = pytest.mark.parametrize("pair", SOME_PAIRS)
RAISED = [
    TypeError("forward() missing 1 required positional argument: 'b'"),
    ValueError("Input image size (17*23) doesn't match model (32*32)."),
    AssertionError("Wrong image size"),
    AttributeError("no attribute 'x'"),
    KeyError("x"),
    IndexError("list index out of range"),
    NotImplementedError("not yet"),
    StopIteration(),
    ZeroDivisionError("division by zero"),
    OSError(5, "Input/output error"),
    UserWarning("taken for an error"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
]


ERRORS: dict[int, BaseException] = {}
"""By their ids, since a copy of a model would copy its error."""


class Failing(nn.Module):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.stem, self.body, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 5)
        ERRORS[id(error)] = error
        self.error = id(error)

    def forward(self, x: Tensor) -> Tensor:
        self.body(self.stem(x))
        raise ERRORS[self.error]


@EVERY
@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_what_a_model_raises_is_a_model_error(error: Exception, pair: tuple[str, str]) -> None:
    behind: dict[str, Technique] = {  # the failure; a layer before it can be asked about
        "activations": Activations(layers=("head",)),
        "filter_visualization": FilterVisualization.notebook(layer="head", channels=(0,), steps=1, size=(17, 23)),
    }
    technique = behind.get(pair[0], TECHNIQUES[pair[0]])
    model = Failing(error).eval()
    with (
        guard(model),
        pytest.raises(ModelError, match=r"the model failed on inputs of shape \(\d, 3, 17, 23\), torch") as info,
    ):
        ask(pair, model, X, technique=technique)
    assert str(error).strip() in str(info.value)
    assert type(error).__name__ in str(info.value) or type(error) is RuntimeError or type(error) is NotImplementedError
    chain: BaseException | None = info.value
    while chain is not None and chain is not error:
        chain = chain.__cause__
    assert chain is error


@EVERY
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)], ids=lambda error: type(error).__name__)
def test_who_ends_the_process_is_not_kept_from_it(error: BaseException, pair: tuple[str, str]) -> None:
    model = Failing(error).eval()
    with guard(model), pytest.raises(type(error)):
        ask(pair, model, X)


def test_a_second_input_that_nobody_gave() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, a: Tensor, b: Tensor) -> Any:
            return (self.conv(a) - self.conv(b)).mean((2, 3))

    for backend in ("hooks", "captum"):
        for technique in (Occlusion(window=8, stride=8), GradCAM(layers=("conv",)), Activations(layers=("conv",))):
            with pytest.raises(ModelError, match=r"TypeError: .*missing 1 required positional argument: 'b'"):
                explain(Pair(), X, technique, backend=backend)


def raising(*args: Any) -> None:
    raise TypeError("my own")


@EVERY
@pytest.mark.parametrize("kind", ["forward", "forward_pre"])
def test_a_hook_of_the_users_is_named(kind: str, pair: tuple[str, str]) -> None:
    model = Failing(ValueError()).eval()
    getattr(model.stem, f"register_{kind}_hook")(raising)
    with guard(model), pytest.raises(ModelError, match=r"the hook tests\.models\.test_failures\.raising .*my own"):
        ask(pair, model, X)


class Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> Tensor:
        raise TypeError("no backward of mine")


class Through(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(Backward.apply(self.stem(x)))
        return self.head(Backward.apply(y).mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("pair", [p for p in PAIRS if p[0] in ("grad_cam", "filter_visualization")], ids=".".join)
def test_a_backward_that_fails(pair: tuple[str, str]) -> None:
    model = Through().eval()
    with guard(model), pytest.raises(ModelError, match=r"no gradient could be taken .*no backward of mine") as info:
        ask(pair, model, X)
    assert isinstance(info.value.__cause__, TypeError)


@pytest.mark.parametrize("pair", [p for p in PAIRS if p[0] in ("grad_cam", "filter_visualization")], ids=".".join)
def test_a_full_backward_hook_that_fails(pair: tuple[str, str]) -> None:
    model = Failing(ValueError()).eval()
    model.forward = lambda x: model.head(model.body(model.stem(x)).mean((2, 3)))  # type: ignore[method-assign]
    for layer in (model.stem, model.head):
        layer.register_full_backward_hook(raising)
    with pytest.raises(ModelError, match=r"a backward hook on a .* of the model failed: TypeError: my own"):
        ask(pair, model, X)


def test_a_fault_of_an_attributor_stays_what_it_is() -> None:
    class Faulty(Attributor[GradCAM]):
        technique_type = GradCAM
        backend = "faulty"

        def compute(self, run: Run[Any]) -> Maps:
            run.forward(run.inputs)
            raise TypeError("of the plugin")

    with pytest.raises(TypeError, match="of the plugin") as info:
        Faulty(Through().eval(), GradCAM(layers=("stem",))).attribute(X, 1)
    assert not isinstance(info.value, AttributionError)
