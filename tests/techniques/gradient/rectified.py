"""Nets with rectifiers in every spelling, their backward written out by hand, and one by a function mode."""

from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from attribution import Deconvolution, GuidedBackprop
from attribution.technique import Technique
from tests.techniques.gradient.cases import noise

Rule = Literal["guided", "deconvolution", "plain", "negative"]
Rectifier = Callable[["Net", Tensor, int], Tensor]
CHANNELS, CLASSES, SIZE = 2, 3, (4, 5)
X = noise(3, CHANNELS, *SIZE, seed=7)
RULES: dict[Rule, Technique] = {"guided": GuidedBackprop(), "deconvolution": Deconvolution()}
RULE = pytest.mark.parametrize("rule", RULES)
TARGETS = [[2, 0], [1, 1], [0, 2]]


class Net(nn.Module):
    """h = conv(x), a = relu(h), k = conv(a) + h, b = relu(k), and a linear layer: h is read by two."""

    def __init__(self, rectify: Rectifier) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False) for _ in range(2))
        self.last = nn.Linear(CHANNELS * SIZE[0] * SIZE[1], CLASSES, bias=False)
        self.one, self.other = nn.ReLU(), nn.ReLU()
        self.writing, self.again = nn.ReLU(inplace=True), nn.ReLU(inplace=True)
        self.rectify = rectify
        self.double().eval()
        with torch.no_grad():
            for place, parameter in enumerate(self.parameters()):
                parameter.copy_(noise(*parameter.shape, seed=place))

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        skip = h * 1.0
        k = self.second(self.rectify(self, h, 0)) + skip
        out: Tensor = self.last(self.rectify(self, k, 1).flatten(1))
        return out


def _ignored(net: Net, x: Tensor, place: int) -> Tensor:
    (net.writing, net.again)[place](x)
    return x


def _view(net: Net, x: Tensor, place: int) -> Tensor:
    F.relu(x.view(len(x), -1), inplace=True)
    return x


def _halves(net: Net, x: Tensor, place: int) -> Tensor:
    torch.relu_(x[:, :1])
    x[:, 1:].relu_()
    return x


MODULES: dict[str, Rectifier] = {
    "modules": lambda net, x, place: (net.one, net.other)[place](x),
    "one module for both": lambda net, x, place: net.one(x),
    "modules in place": lambda net, x, place: (net.writing, net.again)[place](x),
    "modules in place, their result ignored": _ignored,
}
"""What Captum sees too."""

FUNCTIONS: dict[str, Rectifier] = {
    "F.relu": lambda net, x, place: F.relu(x),
    "F.relu in place": lambda net, x, place: F.relu(x, inplace=True),
    "torch.relu": lambda net, x, place: torch.relu(x),
    "torch.relu_": lambda net, x, place: torch.relu_(x),
    "Tensor.relu": lambda net, x, place: x.relu(),
    "Tensor.relu_": lambda net, x, place: x.relu_(),
    "aten": lambda net, x, place: torch.ops.aten.relu_.default(x),
    "a view in place": _view,
    "halves in place": _halves,
    "a module and a function": lambda net, x, place: net.one(x) if place else F.relu(x),
    "hardtanh from 0": lambda net, x, place: F.hardtanh(x, 0.0, 1e9),
}

CAPPED: dict[str, Rectifier] = {
    "hardtanh": lambda net, x, place: F.hardtanh(x, 0.0, 1.5),
    "hardtanh_": lambda net, x, place: F.hardtanh_(x, 0.0, 1.5),
    "relu6": lambda net, x, place: F.relu6(4 * x) / 4,
    "relu6 in place": lambda net, x, place: F.relu6(4 * x, inplace=True) / 4,
}
"""Those that end at 1.5."""


def by_hand(net: Net, x: Tensor, target: int, rules: tuple[Rule, Rule], top: float = float("inf")) -> Tensor:
    """(C, H, W), of one image (C, H, W): both rectifiers end at ``top``, and each has a rule."""
    first, second, last = (parameter.detach() for parameter in net.parameters())
    h = _convolved(x, first)
    k = _convolved(_each(h, lambda value: min(max(value, 0.0), top)), second) + h
    g = _back(last[target].view_as(k), k, rules[1], top)
    return _turned(_back(_turned(g, second), h, rules[0], top) + g, first)


@cache
def written(rules: tuple[Rule, Rule], image: int, target: int, top: float) -> Tensor:
    """Of a net and images that are always the same."""
    return by_hand(Net(MODULES["modules"]), X[image], target, rules, top)


def _back(g: Tensor, x: Tensor, rule: Rule, top: float) -> Tensor:
    found = torch.zeros_like(g)
    for place, value in enumerate(x.flatten().tolist()):
        arriving, passes = g.flatten()[place].item(), 0.0 < value < top
        found.view(-1)[place] = {
            "plain": arriving if passes else 0.0,
            "guided": max(arriving, 0.0) if passes else 0.0,
            "deconvolution": max(arriving, 0.0),
            "negative": min(arriving, 0.0) if passes else 0.0,
        }[rule]
    return found


def _each(x: Tensor, function: Callable[[float], float]) -> Tensor:
    return torch.tensor([function(value) for value in x.flatten().tolist()], dtype=x.dtype).view_as(x)


def _taps(weight: Any, size: torch.Size) -> Any:
    """Output and input place, and the weight between them, of a convolution with padding."""
    for d in range(weight.shape[0]):
        for c in range(weight.shape[1]):
            for i in range(size[1]):
                for j in range(size[2]):
                    for u in range(3):
                        for v in range(3):
                            p, q = i + u - 1, j + v - 1
                            if 0 <= p < size[1] and 0 <= q < size[2]:
                                yield (d, i, j), (c, p, q), weight[d, c, u, v]


def _convolved(x: Tensor, weight: Tensor) -> Tensor:
    found, values = np.zeros(x.shape), x.numpy()
    for to, begin, w in _taps(weight.numpy(), x.shape):
        found[to] += w * values[begin]
    return torch.from_numpy(found)


def _turned(g: Tensor, weight: Tensor) -> Tensor:
    """The way back through a convolution."""
    found, values = np.zeros(g.shape), g.numpy()
    for begin, to, w in _taps(weight.numpy(), g.shape):
        found[to] += w * values[begin]
    return torch.from_numpy(found)


class _Ruled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rule: Rule) -> Tensor:
        ctx.rule = rule
        y = x.clamp(min=0)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (y,), (g,) = ctx.saved_tensors, gradients
        passed = torch.where(g > 0, g, 0.0) if ctx.rule != "plain" else g
        return passed * (1 if ctx.rule == "deconvolution" else (y > 0)), None


class Ruled(TorchFunctionMode):
    """Another witness for large nets: each function that is a ReLU is answered by one with a backward of its own."""

    def __init__(self, rule: Rule, *, but: int | None = None) -> None:
        super().__init__()
        self.rule, self.but, self.count = rule, but, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_):
            self.count += 1
            if self.count - 1 != self.but:
                ruled = _Ruled.apply(args[0], self.rule)
                writes = func in (torch.relu_, Tensor.relu_) or (kwargs or {}).get("inplace", False)
                return args[0].copy_(ruled) if writes else ruled
        return func(*args, **(kwargs or {}))


def by_mode(model: nn.Module, x: Tensor, target: int, rule: Rule, *, but: int | None = None) -> Tensor:
    """(N, C, …); ``but``: one ReLU is left out."""
    leaf = x.clone().requires_grad_()
    with Ruled(rule, but=but):
        output = model(leaf.clone())
    return torch.autograd.grad(output[:, target].sum(), leaf)[0]


def off(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    assert expected.any()
    return ((found - expected).abs().max() / expected.abs().max()).item()


def written_out(rules: tuple[Rule, Rule], batch: int = 3, top: float = float("inf")) -> Tensor:
    return torch.stack([torch.stack([written(rules, n, t, top) for t in TARGETS[n]]) for n in range(batch)])
