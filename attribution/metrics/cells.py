"""Maps as cells: at the resolution they have, or that is compared; and cells laid over an input's places."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from attribution.errors import InputError, NonFiniteError
from attribution.inputs.inputs import Inputs
from attribution.result import Attribution


@dataclass(frozen=True, eq=False)
class CellMap:
    """A map whose cells can be ordered.

    Attributes:
        input: Name of the explained input that the cells cover.
        values: (N, T, *cells), or (N, 1, *cells) for a map that is the same for all targets. Of inputs (N, F) each
            feature is a cell.
    """

    input: str
    values: Tensor

    @property
    def count(self) -> int:
        """N."""
        return self.values.shape[2:].numel()

    def __getitem__(self, rows: slice) -> "CellMap":
        return CellMap(self.input, self.values[rows])


def cell_maps(name: str, given: Attribution | Tensor, inputs: Inputs, most: int | None) -> dict[str, CellMap]:
    """Maps by name: one, or ``"NAME · KEY"`` for each where an attribution has several.

    A map that was enlarged for the eye is taken as it was before. Channels of a map in input space are added up. A grid
    with more than ``most`` cells along an axis is pooled: each place belongs to one cell, and a cell is the mean of its
    places.

    Args:
        name: Of the map.
        given: An attribution, or (N, T, *cells), or (N, T, C, *cells).
        inputs: Of the call.
        most: Cells along one axis; ``None``: as many as there are.

    Raises:
        InputError: A map has no cells, another number of examples, or is finer than the input.
        NonFiniteError: A map holds NaN or infinity.
    """
    if isinstance(given, Attribution):
        maps: Mapping[str, Any] = _own(given, inputs)
    elif isinstance(given, Tensor):
        maps = {"input": given}
    else:
        raise InputError(f"the map {name!r} is {type(given).__name__}; give an Attribution, or a tensor (N, T, *cells)")
    if not maps:
        raise InputError(f"the attribution {name!r} has no maps")
    named = {(name if len(maps) == 1 else f"{name} · {key}"): key for key in maps}
    return {each: _cell_map(each, key, maps[key], inputs, most) for each, key in named.items()}


def lattice(cells: tuple[int, ...], places: tuple[int, ...], device: torch.device) -> Tensor:
    """The cell of each place, flat over both: place i of n lies in cell ⌊i · cells / n⌋ along each axis."""
    index = torch.zeros((), dtype=torch.int64, device=device)
    for count, size in zip(cells, places, strict=True):
        along = torch.arange(size, device=device) * count // size
        index = index[..., None] * count + along
    return index.flatten()


def places_of(inputs: Inputs, name: str) -> tuple[int, ...]:
    """The places of an explained input; of features (N, F) the features."""
    return inputs.places(name) or tuple(inputs.values[name].shape[1:])


def pooled(values: Tensor, cells: tuple[int, ...]) -> Tensor:
    """(N, T, *places) → (N, T, *cells): the mean of the places in each cell, in float64."""
    places = tuple(values.shape[2:])
    index = lattice(cells, places, values.device)
    count = torch.bincount(index)
    found = values.new_zeros((*values.shape[:2], len(count)), dtype=torch.float64)
    found.index_add_(2, index, values.flatten(2).double())
    return (found / count).reshape(*values.shape[:2], *cells)


def _own(given: Attribution, inputs: Inputs) -> Mapping[str, Tensor]:
    """The maps of an attribution before they were enlarged."""
    technique = given.technique
    enlarges = any(field.name == "upsample" for field in fields(technique)) and getattr(technique, "upsample", False)
    if not (enlarges and given.raw):
        return given.maps
    changed: Any = {"upsample": False}
    return replace(technique, **changed).finish(dict(given.raw), inputs)


def _cell_map(name: str, key: str, values: Tensor, inputs: Inputs, most: int | None) -> CellMap:
    if values.ndim < 3 or len(values) != len(inputs):
        raise InputError(
            f"the map {name!r} has shape {tuple(values.shape)} for {len(inputs)} examples; expected (N, T, *cells)"
        )
    owner = _owner(name, key, values, inputs)
    places = places_of(inputs, owner)
    if values.ndim == len(places) + 3:
        values = values.sum(dim=2)
    shape = tuple(values.shape[2:])
    if len(shape) != len(places) or any(map(int.__gt__, shape, places)) or not values[0].numel():
        raise InputError(
            f"the map {name!r} has {shape} cells for places {places} of {owner!r}; give as many axes, and no more "
            "cells than there are places, but at least one"
        )
    if values.is_complex():
        raise InputError(f"the map {name!r} holds {values.dtype}, which has no order; give real numbers")
    values = values.detach().to(inputs.device)
    if not bool(torch.isfinite(values).all()):
        part = (~torch.isfinite(values)).double().mean().item()
        raise NonFiniteError(f"{part:.1%} of the map {name!r} is NaN or infinite; such cells have no order")
    cells = shape if most is None or not inputs.places(owner) else tuple(min(size, most) for size in shape)
    return CellMap(owner, values if cells == shape else pooled(values, cells))


def _owner(name: str, key: str, values: Tensor, inputs: Inputs) -> str:
    """The explained input that a map covers: the one it is named after, else the first with as many axes of places."""
    for each in inputs.explained:
        if inputs.key(each) == key:
            return each
    for each in inputs.explained:
        if len(places_of(inputs, each)) + 2 == values.ndim:
            return each
    raise InputError(
        f"the map {name!r} has shape {tuple(values.shape)}, and no explained input has {values.ndim - 2} axes of places"
    )
