"""Models that cannot be taken apart, or look as if they could not, and which engine each gets."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import register_parametrization

Build = Callable[[], nn.Module]


class Base(nn.Module):
    """Two convolutions and a linear layer, in float64; a subclass changes what lies between."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.norm, self.relu, self.head = nn.BatchNorm2d(6), nn.ReLU(), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Any:
        return self.logits(self.middle(self.norm(self.a(x))))

    def middle(self, x: Tensor) -> Tensor:
        y: Tensor = self.relu(x)
        return y

    def logits(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.b(x).amax((2, 3)))
        return y


class Branching(Base):
    def middle(self, x: Tensor) -> Tensor:
        return 0 * x if x.isnan().any() else 2 * x


class Doubling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return 2 * grads[0]


class OwnGradient(Base):
    def middle(self, x: Tensor) -> Tensor:
        return Doubling.apply(x)  # type: ignore[no-any-return]


class Remembering(Base):
    last: Any = None

    def middle(self, x: Tensor) -> Tensor:
        if self.last is not None and self.last.shape == x.shape:
            x = x + 0 * self.last
        self.last = x
        return x


class Counting(Base):
    calls = 0

    def middle(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen = [*getattr(self, "seen", ()), x]
        return x


class Constant(Base):
    def middle(self, x: Tensor) -> Tensor:
        return x * torch.tensor([2.0, 1, 0, 1, 1, 1], dtype=x.dtype)[:, None, None]


class Random(Base):
    def middle(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.3) + torch.rand_like(x)


class Recurrent(Base):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 6, batch_first=True)

    def middle(self, x: Tensor) -> Tensor:
        rows: Tensor = self.lstm(x.mean(2).transpose(1, 2))[0]
        return x + rows.transpose(1, 2)[:, :, None]


class OwnConvolution(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean((2, 3), keepdim=True))


class OwnNorm(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.instance_norm(x)


class OwnReLU(nn.ReLU):
    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(max=x.amax((2, 3), keepdim=True) * 0.8)


class LayerNorm2d(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[1:])


class Halving(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 2


class Optional(Base):
    def forward(self, x: Tensor, mask: Tensor | None = None, *, scale: float = 2.0, again: bool = False) -> Any:
        x = self.a(x)
        if mask is not None:
            x = x * mask
        return self.logits(x if again else F.interpolate(x, scale_factor=scale))


class Named(Base):
    def forward(self, x: Tensor) -> Any:
        features = self.relu(self.a(x))
        return {"features": features, "out": self.logits(features)}


class Several(Base):
    def forward(self, x: Tensor) -> Any:
        features = self.relu(self.a(x))
        return features, [self.logits(features)], self.logits(features)


def hooked(*, pre: bool) -> nn.Module:
    model = Base()
    if pre:
        model.relu.register_forward_pre_hook(lambda module, args: (args[0] - args[0].mean((2, 3), keepdim=True),))
    else:
        model.relu.register_forward_hook(lambda module, args, out: out / (1 + out.mean((2, 3), keepdim=True)))
    return model


def replaced() -> nn.Module:
    model = Base()
    model.relu.forward = lambda x: F.instance_norm(x)  # type: ignore[method-assign, assignment]
    return model


def part(name: str, layer: nn.Module) -> nn.Module:
    model = Base()
    setattr(model, name, layer)
    return model


def normed(model: Base) -> nn.Module:
    with pytest.warns(FutureWarning, match="weight_norm"):
        torch.nn.utils.weight_norm(model.a)
    return model


def halved(model: Base) -> nn.Module:
    register_parametrization(model.b, "weight", Halving())
    return model


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")  # type: ignore[return-value]


MODELS: dict[str, tuple[Build, str]] = {
    "base": (Base, "incremental"),
    "control flow": (Branching, "dense"),
    "own gradient": (OwnGradient, "either"),
    "remembers a tensor": (Remembering, "dense"),
    "counts its calls": (Counting, "incremental"),
    "tensor made while it runs": (Constant, "dense"),  # it asks for a dtype
    "random": (Random, "dense"),
    "recurrent": (Recurrent, "either"),
    "hook": (lambda: hooked(pre=False), "dense"),
    "pre-hook": (lambda: hooked(pre=True), "dense"),
    "replaced forward": (replaced, "dense"),
    "own convolution": (lambda: part("b", OwnConvolution(6, 6, 1)), "incremental"),
    "own norm": (lambda: part("norm", OwnNorm(6)), "incremental"),
    "own ReLU": (lambda: part("relu", OwnReLU()), "incremental"),
    "own LayerNorm2d": (lambda: part("norm", LayerNorm2d(6)), "incremental"),
    "spectral norm": (lambda: part("a", parametrizations.spectral_norm(nn.Conv2d(3, 6, 3))), "either"),
    "weight norm": (lambda: part("b", parametrizations.weight_norm(nn.Conv2d(6, 6, 3))), "either"),
    "old weight norm": (lambda: normed(Base()), "dense"),
    "parametrized": (lambda: halved(Base()), "either"),
    "compiled": (lambda: compiled(Base()), "incremental"),
    "optional arguments": (Optional, "incremental"),
}


def made(name: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return MODELS[name][0]().double().eval()
