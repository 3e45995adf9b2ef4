"""The four techniques in plain loops over pixels, windows and channels: slow, no autograd, any dtype."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.oracles.net import Array, Net, array


def images(inputs: Tensor, dtype: type = np.float64) -> list[Array]:
    return [array(image, dtype) for image in inputs]


def grad_cam(net: Net, image: Array, layer: str, target: int) -> Array:
    activation, logits = net.layer(image, layer), net.logits(image)
    g = net.pull((np.arange(len(logits)) == target).astype(net.dtype), len(net.ops), net.ends[layer])
    cam = np.zeros(activation.shape[1:], net.dtype)
    for k in range(len(activation)):
        weight = net.dtype(0)
        for value in g[k].flat:
            weight += value
        weight /= g[k].size
        for i, j in np.ndindex(*cam.shape):
            cam[i, j] += weight * activation[k, i, j]
    return cam


def bilinear(map_: Array, height: int, width: int) -> Array:
    """Half-pixel centres, clamped at the border."""
    h, w = map_.shape
    out = np.zeros((height, width))
    for i, j in np.ndindex(height, width):
        y, x = max((i + 0.5) * h / height - 0.5, 0.0), max((j + 0.5) * w / width - 0.5, 0.0)
        top, left = min(int(y), h - 1), min(int(x), w - 1)
        bottom, right = min(top + 1, h - 1), min(left + 1, w - 1)
        dy, dx = y - top, x - left
        above = map_[top, left] * (1 - dx) + map_[top, right] * dx
        below = map_[bottom, left] * (1 - dx) + map_[bottom, right] * dx
        out[i, j] = above * (1 - dy) + below * dy
    return out


def starts(size: int, window: int, stride: int, border: str) -> list[int]:
    found = [0]
    while found[-1] + window < size:
        found.append(found[-1] + stride)
    return [start for start in found if border == "cover" or start + window <= size]


def softmax(logits: Array) -> Array:
    powers = np.array([np.exp(value - logits.max()) for value in logits], logits.dtype)
    return np.asarray(powers / powers.sum())


def occlusion(
    score: Callable[[Array], Array],
    image: Array,
    *,
    window: tuple[int, ...],
    stride: tuple[int, ...],
    baseline: Sequence[Any],
    border: str = "cover",
) -> Array:
    """``score`` maps an image to (K,) scores: (K, H, W)."""
    _, height, width = image.shape
    clean = score(image)
    total = np.zeros((len(clean), height, width), image.dtype)
    count = np.zeros((height, width), int)
    for top in starts(height, window[0], stride[0], border):
        for left in starts(width, window[1], stride[1], border):
            pixels = [
                (i, j)
                for i in range(top, min(top + window[0], height))
                for j in range(left, min(left + window[1], width))
            ]
            covered = image.copy()
            for i, j in pixels:
                covered[:, i, j] = baseline
            delta = clean - score(covered)
            for i, j in pixels:
                total[:, i, j] += delta
                count[i, j] += 1
    for i, j in np.ndindex(height, width):
        if count[i, j]:
            total[:, i, j] /= count[i, j]
    return total


def ascend(
    net: Net, image: Array, layer: str, channel: int, steps: int, step_size: float
) -> tuple[list[Array], list[float]]:
    """The images before the first and after each step, and the objective of each of them."""
    history: list[float] = []
    path = [image]
    for step in range(steps + 1):
        activation = net.layer(image, layer)
        history.append(float(activation[channel].sum() / activation[channel].size))
        if step == steps:
            break
        g = np.zeros_like(activation)
        g[channel] = net.dtype(1) / activation[channel].size
        g = net.pull(g, net.ends[layer], 0)
        mean = g.sum() / g.size
        spread = np.sqrt(((g - mean) ** 2).sum() / (g.size - 1))
        image = image + net.dtype(step_size) * g / (spread + net.dtype(1e-8))
        path.append(image)
    return path, history


def stacked(parts: list[Array]) -> Tensor:
    return torch.from_numpy(np.stack(parts).astype(np.float64))
