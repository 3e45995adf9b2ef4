"""Layers whose copy computes something else, or that run modules which a copy does not hold."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


class _Gain(nn.Module):
    """Three times its input; so does an honest copy."""

    def __init__(self, factor: float = 3.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class _ForgetfulState(_Gain):
    """What is pickled or copied starts afresh."""

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "factor": 1.0}


class _ForgetfulCopy(_Gain):
    """Its deep copy is a new one."""

    def __deepcopy__(self, memo: object) -> "_ForgetfulCopy":
        return _ForgetfulCopy(1.0)


class _ForgetfulMode(_Gain):
    """Holds a part for each mode, as graph modules do; a copy begins with that of training."""

    def __init__(self) -> None:
        super().__init__()
        self.factors = {True: 1.0, False: 3.0}
        self.train()

    def train(self, mode: bool = True) -> "_ForgetfulMode":
        super().train(mode)
        self.factor = self.factors[mode]
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _ForgetfulMode, ()


class _Normed(nn.Module):
    """A batch norm whose statistics are far from those of any batch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        self.norm.running_mean.copy_(torch.tensor([0.5, -1.0, 0.25]))
        self.norm.running_var.copy_(torch.tensor([0.3, 2.0, 0.7]))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x)
        return y


class _FunctionOver(_Normed):
    """The same, run by a function that leads to the norm by ``way``."""

    def __init__(self, way: str) -> None:
        super().__init__()
        norm = self.norm
        direct = lambda x: norm(x)  # noqa: E731  # what people write
        ways: dict[str, Any] = {
            "lambda in a dict": {"step": lambda x: self.norm(x)},
            "lambda in a list": [direct],
            "default argument": {"step": lambda x, norm=norm: norm(x)},
            "partial": {"step": partial(_run, norm)},
            "function over a function": {"step": lambda x: direct(x)},
        }
        self.steps = ways[way]

    def forward(self, x: Tensor) -> Tensor:
        (step,) = self.steps.values() if isinstance(self.steps, dict) else self.steps
        y: Tensor = step(x)
        return y


def _run(norm: nn.Module, x: Tensor) -> Tensor:
    y: Tensor = norm(x)
    return y


class _HookOver(_Normed):
    """The same, run by a forward hook on a layer that does nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.none = nn.Identity()
        self.none.register_forward_hook(lambda module, args, output: self.norm(output))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.none(x)
        return y


_WAYS = ("lambda in a dict", "lambda in a list", "default argument", "partial", "function over a function")

COPIED: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    "__getstate__ that resets": (_ForgetfulState, _Gain),
    "__deepcopy__ that resets": (_ForgetfulCopy, _Gain),
    "a copy in the other mode": (_ForgetfulMode, _Gain),
    **{way: (partial(_FunctionOver, way), _Normed) for way in _WAYS},
    "a hook over another layer": (_HookOver, _Normed),
}
"""Layers (N, 3, H, W) → the same, each with the same function told plainly."""
