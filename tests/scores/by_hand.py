"""What scores mean, number by number."""

from math import sqrt

import torch
from torch import Tensor

from tests.scores.net import SIZE


def in_mask(plane: Tensor, mask: Tensor, *, mean: bool = True) -> Tensor:
    """Σ mask · plane, pixel by pixel, divided by Σ mask."""
    total, size = plane.new_zeros(()), 0.0
    for i in range(SIZE[0]):
        for j in range(SIZE[1]):
            total = total + float(mask[i, j]) * plane[i, j]
            size += float(mask[i, j])
    return total / size if mean else total


def softmax(row: Tensor, column: int) -> Tensor:
    total = sum((value.exp() for value in row), row.new_zeros(()))
    return row[column].exp() / total


def sigmoid(value: Tensor) -> Tensor:
    return 1 / (1 + (-value).exp())


def best(row: Tensor) -> int:
    return max(range(len(row)), key=lambda k: number(row[k]))


def near(clean: Tensor, k: int, count: int) -> list[int]:
    """The classes whose logits on the clean input are nearest to that of class k."""
    others = [d for d in range(len(clean)) if d != k]
    return sorted(others, key=lambda d: abs(number(clean[d]) - number(clean[k])))[:count]


def finer(row: Tensor, k: int, others: list[int], strength: float, *, soft: bool = False) -> Tensor:
    total = sum((row[d].exp() for d in others), row.new_zeros(()))
    weights = [row[d].exp() / total if soft else row.new_tensor(1 / len(others)) for d in others]
    return row[k] - strength * dot(torch.stack(weights), torch.stack([row[d] for d in others]))


def number(value: Tensor) -> float:
    return float(value.detach())


def dot(a: Tensor, b: Tensor) -> Tensor:
    return sum((x * y for x, y in zip(a, b, strict=True)), a.new_zeros(()))


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return dot(a, b) / (dot(a, a).sqrt() * sqrt(float(dot(b, b))))


def predicted(clean: Tensor, channel: int) -> Tensor:
    """The mask of the places where the channel is the largest."""
    mask = torch.zeros(SIZE, dtype=torch.bool)
    for i in range(SIZE[0]):
        for j in range(SIZE[1]):
            mask[i, j] = best(clean[0, :, i, j]) == channel
    return mask


def overlap(a: Tensor, b: Tensor) -> float:
    width = max(0.0, min(float(a[2]), float(b[2])) - max(float(a[0]), float(b[0])))
    height = max(0.0, min(float(a[3]), float(b[3])) - max(float(a[1]), float(b[1])))
    areas = [(float(c[2]) - float(c[0])) * (float(c[3]) - float(c[1])) for c in (a, b)]
    return width * height / (sum(areas) - width * height)
