"""Maps that are zero everywhere: an answer that shows nothing, so that it is said which."""

from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Tensor

from attribution.running.guards import Guards
from attribution.scores.classes import ClassScore
from attribution.scores.score import Score
from attribution.technique import Kind, Maps

Labels = Callable[[], Sequence[Sequence[str]]]

SAMPLES = 64
"""Values of a map that are looked at first: one that is not zero tells, and most maps have many."""

NAMED = 5
"""Maps that are named one by one before the rest is counted."""


def zero_maps(maps: Maps, kind: Kind, named: Labels, guards: Guards) -> str:
    """Which maps are zero everywhere, e.g. ``"body · image 0 · target 3"``; ``""`` where none is.

    Args:
        maps: As the user sees them.
        kind: Of the technique; a heatmap is looked at by image and target, others by their first axis.
        named: A name for each image and target, asked for where a map is zero.
        guards: Of the call, which are settled by the same look where looks are put off.

    Raises:
        AttributionError: See `Guards.settle`.
    """
    if (
        kind != "heatmap"
        and not guards.late
        and all(map_.shape[:1] == (1,) and guards.seen(map_) for map_ in maps.values())
    ):
        return ""
    axes = 2 if kind == "heatmap" and all(map_.ndim > 2 for map_ in maps.values()) else 1
    pieces = [map_.flatten(axes) if map_.ndim > axes else map_[..., None] for map_ in maps.values()]
    if guards.late:
        sizes = guards.settle([_size(piece) for piece in pieces])
    elif all(bool(_sampled(piece).any(dim=-1).all()) for piece in pieces):  # on the host a look is no wait
        return ""
    else:
        sizes = [piece.any(dim=-1).flatten().tolist() for piece in pieces]
    if all(map(all, sizes)):
        return ""
    words = named()
    found = []
    for name, piece, flat in zip(maps, pieces, sizes, strict=True):
        places = product(*map(range, piece.shape[:-1]))
        found += [_named(name, kind, place, words) for place, size in zip(places, flat, strict=True) if not size]
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return ", ".join(found[:NAMED]) + more


def _size(piece: Tensor) -> Tensor:
    """The largest |value| of each map, or for integers whether any is not zero."""
    if piece.is_floating_point() and piece.numel():
        size: Tensor = torch.linalg.vector_norm(piece, float("inf"), dim=-1)
        return size
    return piece.any(dim=-1)


def _sampled(piece: Tensor) -> Tensor:
    return piece[..., :: max(1, piece.shape[-1] // SAMPLES)]


def _named(name: str, kind: Kind, place: tuple[int, ...], words: Sequence[Sequence[str]]) -> str:
    if kind == "image":
        return f"{name} · picture {place[0]}"
    label = f" · {words[place[0]][place[1]]}" if len(place) > 1 and words else ""
    return f"{name} · image {place[0]}{label}"


def labels(asked: Score, score: Score | None, target: Tensor | None) -> Sequence[Sequence[str]]:
    """What each image and target is called where a map of it is zero; classes that the user named lie on the host."""
    if isinstance(score, ClassScore) and target is not None:
        named = asked.target if isinstance(asked, ClassScore) and isinstance(asked.target, Tensor) else target
        return [[f"target {index}" for index in row] for row in named.tolist()]
    return [] if score is None or target is None else score.names(target)
