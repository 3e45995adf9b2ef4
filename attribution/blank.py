"""Maps that are zero everywhere: an answer that shows nothing, so that it is said which."""

import torch
from torch import Tensor

from attribution.technique import Kind, Maps

SAMPLES = 64
"""Values of a map that are looked at first: one that is not zero tells, and most maps have many."""

NAMED = 5
"""Maps that are named one by one before the rest is counted."""


def zero_maps(maps: Maps, kind: Kind, target: Tensor | None) -> str:
    """Which maps are zero everywhere, e.g. ``"body · image 0 · target 3"``; ``""`` where none is.

    One read from the device where some of the values that are looked at first differ from zero in every map.

    Args:
        maps: As the user sees them.
        kind: Of the technique; a heatmap is looked at by image and target, others by their first axis.
        target: (N, T).
    """
    axes = 2 if kind == "heatmap" and all(map_.ndim > 2 for map_ in maps.values()) else 1
    pieces = [map_.flatten(axes) if map_.ndim > axes else map_[..., None] for map_ in maps.values()]
    if not bool(torch.stack([_sampled(piece).any(dim=-1).all() for piece in pieces]).all()):
        found = []
        for name, piece in zip(maps, pieces, strict=True):
            zero = ~piece.any(dim=-1)
            found += [_named(name, kind, place, target) for place in zero.nonzero().tolist()]
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        return ", ".join(found[:NAMED]) + more
    return ""


def _sampled(piece: Tensor) -> Tensor:
    return piece[..., :: max(1, piece.shape[-1] // SAMPLES)]


def _named(name: str, kind: Kind, place: list[int], target: Tensor | None) -> str:
    if kind == "image":
        return f"{name} · picture {place[0]}"
    label = f" · target {int(target[place[0], place[1]])}" if len(place) > 1 and target is not None else ""
    return f"{name} · image {place[0]}{label}"
