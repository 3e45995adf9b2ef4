"""From a layer's output to a grid of features: which value lies where on the input."""

from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import Tensor

from attribution import numbers
from attribution.errors import InputError
from attribution.techniques.parameters import integer

Tokens = Literal["channels_first", "channels_last"] | tuple[str | int, ...] | None
"""How a layer's output covers the input: see `CAM`; ``None``: by its shape."""

Form = Literal["channels_first", "channels_last", "flattened", "sequence", "sequence_first"]

_PLACES = {0: "", 1: "t", 2: "h, w", 3: "d, h, w"}


@dataclass(frozen=True)
class Grid:
    """Where the values of a layer lie.

    Attributes:
        form: ``"channels_first"``: (N, D, *places). ``"channels_last"``: (N, *places, D). ``"flattened"``: (N, D, L).
            ``"sequence"``: (N, L, D). ``"sequence_first"``: (L, N, D). L is ``leading`` + the product of the places,
            row by row.
        leading: Tokens in front of the grid (class, registers) that have no place on the input.
        places: Sizes of the axes: (), (t,), (h, w) or (d, h, w).
    """

    form: Form
    leading: int
    places: tuple[int, ...]

    @property
    def plain(self) -> bool:
        """Whether the layer's own form is (N, D, *places)."""
        return self.form == "channels_first"

    def map(self, tensor: Tensor) -> Tensor:
        """From the layer's own form, with any axes before it, to (…, N, D, *places); a view without leading tokens."""
        if self.form == "channels_first":
            return tensor
        if self.form == "flattened":
            flattened: Tensor = tensor.unflatten(-1, self.places)
            return flattened
        if self.form == "sequence_first":
            tensor = tensor.transpose(-3, -2)
        if self.form != "channels_last":
            tensor = tensor[..., self.leading :, :].unflatten(-2, self.places)
        return tensor.movedim(-1, -1 - len(self.places))

    def unmap(self, map_: Tensor, tensor: Tensor) -> Tensor:
        """The layer's own form again: ``tensor`` with the values of ``map_`` (…, N, D, *places) on its grid."""
        if self.form == "channels_first":
            return map_
        if self.form == "flattened":
            return map_.flatten(-len(self.places))
        grid = map_.movedim(-1 - len(self.places), -1)
        if self.form == "channels_last":
            return grid
        grid = grid.flatten(-1 - len(self.places), -2)
        if self.form == "sequence_first":
            return torch.cat([tensor[..., : self.leading, :, :], grid.transpose(-3, -2)], dim=-3)
        return torch.cat([tensor[..., : self.leading, :], grid], dim=-2)

    def mean(self, tensor: Tensor) -> Tensor:
        """Over the places, from the layer's own form to (…, N, D)."""
        mapped = self.map(tensor)
        return mapped.mean(tuple(range(-len(self.places), 0))) if self.places else mapped

    def __str__(self) -> str:
        places = "·".join(map(str, self.places))
        return {
            "channels_first": ", ".join(filter(None, ("(N, D", _PLACES[len(self.places)]))) + ")",
            "channels_last": f"(N, {_PLACES[len(self.places)]}, D)",
            "flattened": f"(N, D, {places})",
            "sequence": f"(N, {self.leading} + {places}, D)",
            "sequence_first": f"({self.leading} + {places}, N, D)",
        }[self.form]


def checked(owner: str, tokens: object) -> Tokens:
    """The rule as the user states it.

    Raises:
        InputError: None of the forms.
    """
    if tokens is None:
        return None
    if isinstance(tokens, str) and tokens in ("channels_first", "channels_last"):
        return "channels_first" if tokens == "channels_first" else "channels_last"
    given = numbers.items(tokens) or ()
    word, sizes = (str(given[0]), given[1:]) if given and isinstance(given[0], str) else ("", given)
    leads = word != "channels_first"
    if word not in ("", "channels_first", "sequence_first") or not 1 <= len(sizes) - leads <= 3:
        raise InputError(
            f"{owner}.tokens is {tokens!r}; give 'channels_first', 'channels_last', (leading tokens, h, w), "
            "('sequence_first', leading tokens, h, w), ('channels_first', h, w), or None"
        )
    found = tuple(integer(owner, "tokens", n, least=0 if leads and not i else 1) for i, n in enumerate(sizes))
    return (word, *found) if word else found


def stated(tokens: Tokens, shape: tuple[int, ...], examples: int, ranks: frozenset[int]) -> Grid | None:
    """The grid of an output of this shape by what the user states; ``None`` where the shape does not fit.

    Args:
        tokens: As the user states it.
        shape: Of the output.
        examples: N.
        ranks: How many axes of places the explained inputs have. An output of three axes has one axis of places, and
            is no plain map of an image.
    """
    if isinstance(tokens, str):
        places = shape[2:] if tokens == "channels_first" else shape[1:-1]
        fits = 2 <= len(shape) <= 5 and shape[0] == examples and (len(shape) != 3 or 1 in ranks)
        return Grid(tokens, 0, places) if fits and (tokens == "channels_first" or places) else None
    word, *sizes = tokens if tokens and isinstance(tokens[0], str) else ("", *(tokens or ()))
    if word == "channels_first":
        grid = Grid("flattened", 0, tuple(map(int, sizes)))
        length, own = shape[-1], 0
    else:
        first = word == "sequence_first"
        grid = Grid("sequence_first" if first else "sequence", int(sizes[0]), tuple(map(int, sizes[1:])))
        length, own = (shape[0], 1) if first else (shape[min(1, len(shape) - 1)], 0)
    fits = len(shape) == 3 and shape[own] == examples and length == grid.leading + prod(grid.places)
    return grid if fits else None


def expected(tokens: Tokens, places: int) -> str:
    """The shape that a statement means, in letters, for inputs with so many axes of places."""
    letters = _PLACES.get(places) or "h, w"
    if isinstance(tokens, str):
        return f"(N, D, {letters})" if tokens == "channels_first" else f"(N, {letters}, D)"
    word, *sizes = tokens if tokens and isinstance(tokens[0], str) else ("", *(tokens or ()))
    if word == "channels_first":
        return f"(N, D, {prod(map(int, sizes))})"
    length = int(sizes[0]) + prod(map(int, sizes[1:]))
    return f"({length}, N, D)" if word else f"(N, {length}, D)"
