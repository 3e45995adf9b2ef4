"""Removal of cells in plain loops, one image at a time, in float64."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

Score = Callable[[Tensor], float]


def probability(model: nn.Module, target: int) -> Score:
    def score(image: Tensor) -> float:
        with torch.no_grad():
            return float(model(image[None])[0].softmax(0)[target])

    return score


def mean_colour(image: Tensor) -> Tensor:
    base = image.clone()
    for channel in range(len(image)):
        base[channel] = sum(image[channel].flatten().tolist()) / image[channel].numel()
    return base


def removed(image: Tensor, base: Tensor, gone: set[tuple[int, ...]], grid: tuple[int, ...]) -> Tensor:
    """The image without some cells: each place lies in the cell ⌊place · cells / places⌋."""
    changed = image.clone()
    places = tuple(image.shape[1:])
    for place in np.ndindex(*places):
        cell = tuple(i * n // size for i, n, size in zip(place, grid, places, strict=True))
        if cell in gone:
            changed[(slice(None), *place)] = base[(slice(None), *place)]
    return changed


def curve(score: Score, image: Tensor, base: Tensor, map_: Tensor, steps: int, *, least: bool) -> list[float]:
    """The score with 0, 1, … steps of the cells removed; values of the map are distinct."""
    grid = tuple(map_.shape)
    order = sorted(np.ndindex(*grid), key=lambda cell: float(map_[cell]), reverse=not least)
    steps = min(steps, len(order))
    found = []
    for k in range(steps + 1):
        count = int(k * len(order) / steps + 0.5)
        found.append(score(removed(image, base, set(order[:count]), grid)))
    return found


def area(values: list[float], cells: int, steps: int) -> float:
    steps = min(steps, cells)
    x = [int(k * cells / steps + 0.5) / cells for k in range(steps + 1)]
    return sum((x[k + 1] - x[k]) * (values[k + 1] + values[k]) / 2 for k in range(steps))


def imputed(image: Tensor, gone: Tensor, diagonal: float = 1 / 12) -> Tensor:
    """The image (C, H, W) whose places ``gone`` are the weighted means of their neighbours: a dense system."""
    height, width = gone.shape
    number = {place: k for k, place in enumerate(np.ndindex(height, width)) if bool(gone[place])}
    number = {place: k for k, place in enumerate(number)}
    matrix = np.zeros((len(number), len(number)))
    right = np.zeros((len(number), len(image)))
    for (row, column), k in number.items():
        for down, across in ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)):
            other = row + down, column + across
            if 0 <= other[0] < height and 0 <= other[1] < width:
                weight = diagonal if down and across else 1 / 6
                matrix[k, k] += weight
                if other in number:
                    matrix[k, number[other]] -= weight
                else:
                    right[k] += weight * image[(slice(None), *other)].double().numpy()
    found = image.double().clone()
    for place, values in zip(number, np.linalg.solve(matrix, right), strict=True):
        found[(slice(None), *place)] = torch.from_numpy(values)
    return found
