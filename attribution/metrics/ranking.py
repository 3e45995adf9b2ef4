"""The order of a map's cells."""

import torch
from torch import Tensor

from attribution.metrics.draws import generator


def ranks(values: Tensor, *, seed: int, first: int) -> Tensor:
    """(N, T, *cells) → (N, T, n): the rank of each cell, 0 for the largest value, as int16 where that is enough.

    Equal values are ordered by chance: each photo has one random order of its cells, drawn from ``seed`` and its place
    in the data set. So a constant map is a random one, and neither the batch nor a copy of the map changes the order.

    Args:
        values: Finite.
        seed: Of the question.
        first: Place of the first photo in the data set.
    """
    flat = values.flatten(2)
    count = flat.shape[2]
    drawn = [torch.randperm(count, generator=generator(seed, first + n), device="cpu") for n in range(len(flat))]
    chance = torch.stack(drawn).to(flat.device)[:, None].expand_as(flat)
    order = chance.gather(2, flat.gather(2, chance).argsort(dim=2, descending=True, stable=True))
    dtype = torch.int16 if count <= torch.iinfo(torch.int16).max else torch.int32
    places = torch.arange(count, dtype=dtype, device=flat.device).expand_as(order)
    return torch.empty_like(order, dtype=dtype).scatter_(2, order, places)
