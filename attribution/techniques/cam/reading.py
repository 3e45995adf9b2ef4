"""How a layer's output covers the input where the user does not say it: by its shape, and by what the model does."""

from collections.abc import Sequence
from math import prod

from torch import nn

from attribution import layers
from attribution.errors import LayerError
from attribution.inputs.inputs import Inputs
from attribution.techniques.cam.tokens import Grid, Tokens, expected, stated

Shape = tuple[int, ...]


def places_of(inputs: Inputs, axes: int | None = None) -> Shape:
    """Sizes of the places of the first explained input that has so many axes of them (``None``: any); else ()."""
    found = (inputs.places(name) for name in inputs.explained)
    return next((tuple(places) for places in found if places and axes in (None, len(places))), ())


def grid(owner: str, tokens: Tokens, layer: str, shape: Shape, model: nn.Module, inputs: Inputs) -> Grid:
    """How an output of this shape covers the input: as stated, or inferred where ``tokens`` is ``None``.

    Raises:
        LayerError: The shape does not fit what was stated, has no grid in it, or has two.
    """
    if tokens is not None:
        ranks = frozenset(len(inputs.places(name)) for name in inputs.explained)
        found = stated(tokens, shape, len(inputs), ranks)
        if found is None:
            raise LayerError(
                f"layer {layer!r} gives shape {shape}, but tokens={tokens!r} means "
                f"{expected(tokens, len(places_of(inputs)))}; mend tokens, or leave it out"
            )
        return found
    if len(shape) == 3:
        return _of_three(owner, layer, shape, model, inputs)
    layers.per_image(layer, shape, len(inputs))
    if not 2 <= len(shape) <= 5:
        raise _unread(owner, layer, shape)
    return Grid("channels_first", 0, ()) if len(shape) == 2 else _of_grids(owner, layer, shape, model, inputs)


def _of_grids(owner: str, layer: str, shape: Shape, model: nn.Module, inputs: Inputs) -> Grid:
    """(N, D, *places) or (N, *places, D): `layers.told` says which."""
    first, last = Grid("channels_first", 0, shape[2:]), Grid("channels_last", 0, shape[1:-1])
    if not places_of(inputs, len(shape) - 2) or 0 in shape or prod(last.places) == 1:
        return first
    _, side = layers.told(model, inputs, layer, shape, len(inputs))
    if side is None:
        raise _ambiguous(owner, layer, shape, first, last)
    return first if side == "first" else last


def _of_three(owner: str, layer: str, shape: Shape, model: nn.Module, inputs: Inputs) -> Grid:
    """(N, D, T), (N, D, L), (N, L, D) or (L, N, D): `layers.told` says which, and the inputs' places what L covers."""
    examples, side = layers.told(model, inputs, layer, shape, len(inputs))
    every = tuple(dict.fromkeys(inputs.places(name) for name in inputs.explained))
    images, steps = [places for places in every if len(places) > 1], [places for places in every if len(places) == 1]
    if examples == 1:
        found = [Grid("sequence_first", lead, side) for lead, side in _patches(shape[0], images)]
        return _single(owner, layer, shape, [*found, *[Grid("sequence_first", 0, shape[:1]) for _ in steps[:1]]])
    series = Grid("channels_first", 0, shape[2:])
    flattened = _flattened(shape, model, inputs, {len(places) for places in images})
    if side == "first":
        return _single(owner, layer, shape, flattened or [series])
    tokens = [Grid("sequence", lead, side) for lead, side in _patches(shape[1], images)]
    if side == "last" and steps and (not tokens or shape[1:2] in steps):
        tokens.append(Grid("channels_last", 0, shape[1:2]))
    elif side is None and steps:
        tokens.append(series)
    return _single(owner, layer, shape, [*flattened, *tokens])


def _flattened(shape: Shape, model: nn.Module, inputs: Inputs, ranks: set[int]) -> list[Grid]:
    """The grids (N, D, *places) in the model of which (N, D, L) is one that was flattened."""
    grids = {stop.shape[2:] for stop in layers.survey(model, inputs) if stop.shape and len(stop.shape) - 2 in ranks
             and stop.shape[1] == shape[1] and prod(stop.shape[2:]) == shape[2]}  # fmt: skip
    return [Grid("flattened", 0, side) for side in sorted(grids)]


def _patches(length: int, images: Sequence[Shape]) -> list[tuple[int, Shape]]:
    """(leading tokens, grid) of so many tokens, on any of the images."""
    found = [(lead, tuple(side)) for image in images for lead, *side in layers.patch_grids(length, image)]
    return list(dict.fromkeys(found))


def _single(owner: str, layer: str, shape: Shape, found: list[Grid]) -> Grid:
    if not found:
        raise _unread(owner, layer, shape)
    if len(found) > 1:
        raise _ambiguous(owner, layer, shape, *found[:2])
    return found[0]


def _ambiguous(owner: str, layer: str, shape: Shape, one: Grid, other: Grid) -> LayerError:
    return LayerError(
        f"layer {layer!r} gives shape {shape}, which may be {one} or {other}; say which: "
        f"{owner}(tokens='channels_first'), 'channels_last', (leading tokens, h, w) or ('channels_first', h, w)"
    )


def _unread(owner: str, layer: str, shape: Shape) -> LayerError:
    return LayerError(
        f"layer {layer!r} gives shape {shape}, which is no map of channels and no tokens on a grid of the input: "
        "choose another layer (`attribution layers` prints the shapes), or say where its tokens lie: "
        f"{owner}(tokens=(leading, h, w)), or ('channels_first', h, w) for (N, D, h·w)"
    )
