"""From a layer's output to a grid of features: which value lies where on the image."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from attribution import layers, numbers
from attribution.errors import InputError, LayerError
from attribution.inputs.inputs import Inputs
from attribution.techniques.parameters import integer

Tokens = Literal["channels_first", "channels_last"] | tuple[int, int, int] | None
"""How a layer's output covers the image: (N, D, h, w), (N, h, w, D), or (prefix, h, w); ``None``: by its shape."""


@dataclass(frozen=True)
class Grid:
    """Where the values of a layer lie.

    Attributes:
        form: ``"channels_first"``: (N, D, h, w). ``"channels_last"``: (N, h, w, D). ``"sequence"``: (N, L, D), L =
            ``leading`` + h·w, row by row.
        leading: Tokens in front of the grid (class, registers) that have no place on the image.
        height: h.
        width: w.
    """

    form: Literal["channels_first", "channels_last", "sequence"]
    leading: int
    height: int
    width: int

    def map(self, tensor: Tensor) -> Tensor:
        """From the layer's own form, with any axes before it, to (…, D, h, w); a view, leading tokens left out."""
        if self.form == "channels_first":
            return tensor
        if self.form == "sequence":
            tensor = tensor[..., self.leading :, :].unflatten(-2, (self.height, self.width))
        return tensor.movedim(-1, -3)

    def unmap(self, map_: Tensor, tensor: Tensor) -> Tensor:
        """The layer's own form again: ``tensor`` with the values of ``map_`` (…, D, h, w) on its grid."""
        if self.form == "channels_first":
            return map_
        grid = map_.movedim(-3, -1)
        if self.form == "channels_last":
            return grid
        return torch.cat([tensor[..., : self.leading, :], grid.flatten(-3, -2)], dim=-2)

    def __str__(self) -> str:
        if self.form == "sequence":
            return f"(N, {self.leading} + {self.height}·{self.width}, D)"
        return "(N, h, w, D)" if self.form == "channels_last" else "(N, D, h, w)"


def checked(owner: str, tokens: object) -> Tokens:
    """The rule as the user states it.

    Raises:
        InputError: None of the forms.
    """
    if tokens is None:
        return None
    if isinstance(tokens, str) and tokens in ("channels_first", "channels_last"):
        return "channels_first" if tokens == "channels_first" else "channels_last"
    given = numbers.items(tokens)
    if given is None or len(given) != 3:
        raise InputError(
            f"{owner}.tokens is {tokens!r}; give 'channels_first', 'channels_last', (leading tokens, h, w), or None"
        )
    leading, *sides = given
    height, width = (integer(owner, "tokens", side, least=1) for side in sides)
    return integer(owner, "tokens", leading, least=0), height, width


def grid(tokens: Tokens, layer: str, shape: tuple[int, ...], model: nn.Module, inputs: Inputs) -> Grid:
    """How an output of this shape covers the image: as stated, or inferred where ``tokens`` is ``None``.

    Raises:
        LayerError: The shape does not fit what was stated, has no grid in it, or has two.
    """
    if tokens is None:
        return _inferred(layer, shape, model, inputs)
    if isinstance(tokens, str):
        if len(shape) != 4:
            raise _unfit(layer, shape, tokens)
        height, width = shape[2:] if tokens == "channels_first" else shape[1:3]
        return Grid(tokens, 0, height, width)
    leading, height, width = tokens
    if len(shape) != 3 or shape[0] != len(inputs) or shape[1] != leading + height * width:
        raise _unfit(layer, shape, tokens)
    return Grid("sequence", leading, height, width)


def _inferred(layer: str, shape: tuple[int, ...], model: nn.Module, inputs: Inputs) -> Grid:
    if len(shape) == 4:
        return _of_four(layer, shape, model, inputs)
    fits = len(shape) == 3 and shape[0] == len(inputs)
    found = [Grid("sequence", *grid) for grid in layers.patch_grids(shape[1], inputs.shape[2:])] if fits else []
    if len(found) > 1:
        raise _ambiguous(layer, shape, f"{found[0]} or {found[1]}")
    if not found:
        raise layers.not_a_map(layer, shape)
    return found[0]


def _of_four(layer: str, shape: tuple[int, ...], model: nn.Module, inputs: Inputs) -> Grid:
    """Channels first unless axes 1 and 2 have the image's aspect and the model computes on the last axis of grids."""
    first, last = Grid("channels_first", 0, *shape[2:]), Grid("channels_last", 0, *shape[1:3])
    if 0 in shape or last.height * last.width == 1 or not _fits(last, inputs, 1.2):
        return first
    evident = any(_on_the_last_axis(stop) for stop in layers.survey(model, inputs))
    plain = _fits(first, inputs, 1.2 if evident else 1.5)
    if evident == plain:
        raise _ambiguous(layer, shape, f"{first} or {last}")
    return first if plain else last


def _on_the_last_axis(stop: layers.Stop) -> bool:
    """Whether the module takes the last axis of a 4-D input for channels."""
    shape, module = stop.input_shape, stop.module
    if shape is None or len(shape) != 4:
        return False
    return isinstance(module, nn.Linear) or (
        isinstance(module, nn.LayerNorm) and module.normalized_shape == tuple(shape[3:])
    )


def _fits(grid: Grid, inputs: Inputs, most: float) -> bool:
    """No larger than the image, and at most ``most`` times as wide or narrow."""
    height, width = inputs.shape[2:]
    stretch = grid.height * width / (grid.width * height)
    return grid.height <= height and grid.width <= width and 1 / most <= stretch <= most


def _ambiguous(layer: str, shape: tuple[int, ...], readings: str) -> LayerError:
    return LayerError(
        f"layer {layer!r} gives shape {shape}, which may be {readings}; "
        "say which: GradCAM(tokens='channels_first'), 'channels_last' or (leading tokens, h, w)"
    )


def _unfit(layer: str, shape: tuple[int, ...], tokens: object) -> LayerError:
    expected = {"channels_first": "(N, D, h, w)", "channels_last": "(N, h, w, D)"}.get(str(tokens), "(N, L, D)")
    if isinstance(tokens, tuple):
        expected = f"(N, {tokens[0] + tokens[1] * tokens[2]}, D)"
    return LayerError(
        f"layer {layer!r} gives shape {shape}, but tokens={tokens!r} means {expected}; mend tokens, or leave it out"
    )
