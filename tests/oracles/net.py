"""Small sequential networks in plain loops over numpy patches, with a backward written by hand."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor, nn

Array = np.ndarray[Any, np.dtype[Any]]


def array(tensor: Tensor | None, dtype: type) -> Array:
    assert tensor is not None
    return np.asarray(tensor.detach().numpy(), dtype=dtype)


class Op:
    """One layer on one image: a forward that remembers its input, and a backward written by hand."""

    x: Array

    def forward(self, x: Array) -> Array:
        raise NotImplementedError

    def backward(self, g: Array) -> Array:
        raise NotImplementedError


class Conv(Op):
    def __init__(self, conv: nn.Conv2d, dtype: type) -> None:
        self.weight = array(conv.weight, dtype)
        self.bias = None if conv.bias is None else array(conv.bias, dtype)
        self.stride, self.depthwise = conv.stride, conv.groups > 1
        self.padding = int(conv.padding[0])

    def taps(self, size: tuple[int, int]) -> list[tuple[int, int, slice, slice]]:
        (down, right), (kh, kw) = self.stride, self.weight.shape[2:]
        rows = range((size[0] - kh) // down + 1)
        columns = range((size[1] - kw) // right + 1)
        return [(i, j, slice(i * down, i * down + kh), slice(j * right, j * right + kw)) for i in rows for j in columns]

    def forward(self, x: Array) -> Array:
        p = self.padding
        self.x = np.pad(x, ((0, 0), (p, p), (p, p)))
        taps = self.taps((self.x.shape[1], self.x.shape[2]))
        y = np.zeros((len(self.weight), taps[-1][0] + 1, taps[-1][1] + 1), x.dtype)
        for i, j, rows, columns in taps:
            if self.depthwise:
                y[:, i, j] = (self.weight[:, 0] * self.x[:, rows, columns]).sum(axis=(1, 2))
            else:
                y[:, i, j] = (self.weight * self.x[:, rows, columns]).sum(axis=(1, 2, 3))
        return y if self.bias is None else y + self.bias[:, None, None]

    def backward(self, g: Array) -> Array:
        gx = np.zeros_like(self.x)
        for i, j, rows, columns in self.taps((self.x.shape[1], self.x.shape[2])):
            if self.depthwise:
                gx[:, rows, columns] += self.weight[:, 0] * g[:, i, j][:, None, None]
            else:
                gx[:, rows, columns] += (self.weight * g[:, i, j][:, None, None, None]).sum(axis=0)
        p = self.padding
        return gx[:, p : gx.shape[1] - p, p : gx.shape[2] - p]


class Norm(Op):
    def __init__(self, norm: nn.BatchNorm2d, dtype: type) -> None:
        mean, variance = array(norm.running_mean, dtype), array(norm.running_var, dtype)
        self.scale = array(norm.weight, dtype) / np.sqrt(variance + dtype(norm.eps))
        self.shift = array(norm.bias, dtype) - mean * self.scale

    def forward(self, x: Array) -> Array:
        return np.stack([x[k] * self.scale[k] + self.shift[k] for k in range(len(x))])

    def backward(self, g: Array) -> Array:
        return np.stack([g[k] * self.scale[k] for k in range(len(g))])


class Clip(Op):
    def __init__(self, top: float) -> None:
        self.top = top

    def forward(self, x: Array) -> Array:
        self.x = x
        return np.where(x < 0, x.dtype.type(0), np.where(x > self.top, x.dtype.type(min(self.top, 1e30)), x))

    def backward(self, g: Array) -> Array:
        return np.where((self.x > 0) & (self.x < self.top), g, g.dtype.type(0))


class MaxPool(Op):
    """2 × 2, the rest dropped; of equal values the first wins."""

    def forward(self, x: Array) -> Array:
        self.x, self.winners = x, {}
        y = np.zeros((len(x), x.shape[1] // 2, x.shape[2] // 2), x.dtype)
        for k, i, j in np.ndindex(*y.shape):
            patch = x[k, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            a, b = divmod(int(patch.argmax()), 2)
            self.winners[k, i, j] = (2 * i + a, 2 * j + b)
            y[k, i, j] = patch[a, b]
        return y

    def backward(self, g: Array) -> Array:
        gx = np.zeros_like(self.x)
        for (k, i, j), (row, column) in self.winners.items():
            gx[k, row, column] += g[k, i, j]
        return gx


class Mean(Op):
    def forward(self, x: Array) -> Array:
        self.x = x
        return np.array([x[k].sum() / x[k].size for k in range(len(x))], x.dtype).reshape(-1, 1, 1)

    def backward(self, g: Array) -> Array:
        size = self.x[0].size
        return np.stack([np.full(self.x[k].shape, g[k, 0, 0] / size, g.dtype) for k in range(len(g))])


class Flatten(Op):
    def forward(self, x: Array) -> Array:
        self.x = x
        return x.reshape(-1)

    def backward(self, g: Array) -> Array:
        return g.reshape(self.x.shape)


class Linear(Op):
    def __init__(self, linear: nn.Linear, dtype: type) -> None:
        self.weight, self.bias = array(linear.weight, dtype), array(linear.bias, dtype)

    def forward(self, x: Array) -> Array:
        return np.array([(self.weight[k] * x).sum() + self.bias[k] for k in range(len(self.bias))], x.dtype)

    def backward(self, g: Array) -> Array:
        return np.array([(self.weight[:, d] * g).sum() for d in range(self.weight.shape[1])], g.dtype)


class Residual(Op):
    def __init__(self, block: nn.Module, dtype: type) -> None:
        self.conv, self.norm = (op_of(child, dtype) for child in (block.conv, block.norm))  # type: ignore[arg-type]

    def forward(self, x: Array) -> Array:
        return self.norm.forward(self.conv.forward(x)) + x

    def backward(self, g: Array) -> Array:
        return self.conv.backward(self.norm.backward(g)) + g


_OPS: dict[str, Callable[[Any, type], Op]] = {
    "Conv2d": Conv,
    "BatchNorm2d": Norm,
    "ReLU": lambda module, dtype: Clip(math.inf),
    "ReLU6": lambda module, dtype: Clip(6.0),
    "MaxPool2d": lambda module, dtype: MaxPool(),
    "AdaptiveAvgPool2d": lambda module, dtype: Mean(),
    "Flatten": lambda module, dtype: Flatten(),
    "Linear": Linear,
    "_Residual": Residual,
}


def op_of(module: nn.Module, dtype: type) -> Op:
    return _OPS[type(module).__name__](module, dtype)


class Net:
    """A sequential torch model, read once and run in numpy on one image (C, H, W) at a time."""

    def __init__(self, model: nn.Module, dtype: type = np.float64) -> None:
        self.ops: list[Op] = []
        self.ends: dict[str, int] = {}
        self.dtype = dtype
        self._add(model, "")

    def _add(self, module: nn.Module, prefix: str) -> None:
        for name, child in module.named_children():
            if isinstance(child, nn.Sequential):
                self._add(child, f"{prefix}{name}.")
            else:
                self.ops.append(op_of(child, self.dtype))
            self.ends[prefix + name] = len(self.ops)

    def layer(self, x: Array, name: str) -> Array:
        for op in self.ops[: self.ends[name]]:
            x = op.forward(x)
        return x

    def logits(self, x: Array) -> Array:
        for op in self.ops:
            x = op.forward(x)
        return x

    def pull(self, g: Array, start: int, end: int) -> Array:
        """A gradient after operation ``start`` brought back to after operation ``end``."""
        for op in reversed(self.ops[end:start]):
            g = op.backward(g)
        return g
