"""Lowered networks against their models in float64, and what is left of the models."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from attribution.lowered import folding, network, writes
from attribution.lowered.convolutions import Packed
from attribution.lowered.network import lower
from attribution.lowered.tracing import Untraceable
from tests.conftest import noise
from tests.lowered import nets


def images(count: int = 3) -> Tensor:
    return noise(count, 3, 11, 14, dtype=torch.float32, seed=4)


def off(model: nn.Module, x: Tensor) -> float:
    """How far the network is from the model in float64, as a part of its largest value."""
    exact = copy.deepcopy(model).double()
    given = x.clone()
    with torch.no_grad():
        found, wanted = lower(model)(given), exact(x.double())
    assert torch.equal(given, x)
    if isinstance(wanted, dict):
        assert list(found) == list(wanted)
        return max(apart(found[key], wanted[key]) for key in wanted)
    return apart(found, wanted)


def apart(found: Tensor, wanted: Tensor) -> float:
    assert (found.shape, found.dtype) == (wanted.shape, torch.float32)
    return float((found.double() - wanted).abs().max() / wanted.abs().max())


@pytest.mark.filterwarnings("ignore:Using padding=.same.")
@pytest.mark.parametrize("kind", nets.WHOLE, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("count", [1, 3])
def test_a_network_is_its_model(kind: type[nn.Module], count: int) -> None:
    model = nets.net(kind)
    before = {name: (id(tensor), tensor.clone()) for name, tensor in model.state_dict(keep_vars=True).items()}
    shapes = {name: (type(module), {**vars(module)}.keys()) for name, module in model.named_modules()}
    assert off(model, images(count)) < 2e-6
    made = lower(model)
    assert (made.packed, made.folded) == nets.WHOLE[kind]
    after = model.state_dict(keep_vars=True)
    assert all(id(after[name]) == at and torch.equal(after[name], value) for name, (at, value) in before.items())
    assert {name: (type(module), {**vars(module)}.keys()) for name, module in model.named_modules()} == shapes


def _with_two_readers(node: fx.Node, modules: dict[str, nn.Module]) -> Any:
    for reader in node.users:
        if reader.op == "call_module" and isinstance(modules[str(reader.target)], nn.BatchNorm2d):
            return reader, modules[str(reader.target)]
    return None


def test_mutants_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A norm that is folded although another reads the convolution; a sum that is moved over a write."""
    with monkeypatch.context() as patch:
        patch.setattr(folding, "norm_after", _with_two_readers)
        assert off(nets.net(nets.TwoReaders), images()) > 1e-3
    with monkeypatch.context() as patch:
        patch.setattr(writes, "written", lambda *_: None)
        patch.setattr(network, "_LIBRARIES", ("torch.", "tests."))
        for moved in (nets.WritesBetween, nets.WritesUntold):
            assert off(nets.net(moved), images()) > 1e-3
    with monkeypatch.context() as patch:
        patch.setattr(Packed, "plus", lambda self, x, other: self(x) + 0.999 * other)
        assert off(nets.net(nets.Shortcuts), images()) > 1e-5


@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.filterwarnings("ignore:Using padding=.same.")
@pytest.mark.parametrize("kind", [nets.Base, nets.Silu, nets.Shortcuts, nets.Odd])
def test_what_is_not_finite_stays_so(kind: type[nn.Module], broken: float) -> None:
    """oneDNN's own ReLU makes a number of NaN, so that it is left to torch."""
    model, x = nets.net(kind), images()
    x[1, :, 4:6] = broken
    with torch.no_grad():
        found, wanted = lower(model)(x), model(x)
    assert torch.equal(found.isnan(), wanted.isnan())
    assert wanted[1].isnan().any()
    assert torch.isfinite(wanted[::2]).all()
    assert (found - wanted)[::2].abs().max() < 1e-5 * wanted[::2].abs().max()


def test_weights_of_today_are_taken() -> None:
    model, x = nets.net(nets.Base), images()
    with torch.no_grad():
        before = lower(model)(x)
        model.a.weight.mul_(2)  # type: ignore[operator, union-attr]
        assert (lower(model)(x) - model(x)).abs().max() < 1e-5 < (before - model(x)).abs().max()


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(x.mean((2, 3)))
        return y


class Branching(nets.Base):
    def middle(self, x: Tensor) -> Tensor:
        return self.a(x) if x.mean() > 0 else self.a(-x)  # type: ignore[no-any-return]


def hooked() -> nn.Module:
    model = nets.Base()
    model.a.register_forward_hook(lambda module, args, output: 2 * output)
    return model


def replaced() -> nn.Module:
    model = nets.Base()
    model.a.forward = model.a.forward  # type: ignore[method-assign]
    return model


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (Linear, "no convolution"),
        (lambda: nets.Base().double(), "no convolution"),
        (Branching, "branches on a value"),
        (hooked, "hooks"),
        (replaced, "forward was replaced"),
        (nets.ReadsWeights, "not traceable: the model makes a tensor of its own"),
    ],
)
def test_what_cannot_be_lowered_says_why(make: Any, why: str) -> None:
    with pytest.raises(Untraceable, match=why):
        lower(nets.net(make))


def test_shapes_that_a_kernel_would_misread_are_refused() -> None:
    packed = Packed.of(nn.Conv2d(3, 4, 3))
    for wrong in (torch.zeros(3, 9, 9), torch.zeros(1, 2, 9, 9), torch.zeros(1, 3, 9, 9, dtype=torch.float64)):
        with pytest.raises(ValueError, match="3 channels"):
            packed(wrong)
        with pytest.raises(ValueError, match="3 channels"):
            packed.plus(wrong, torch.zeros(1))
