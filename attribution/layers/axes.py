"""Which axis of a layer's output is the examples', which the channels': the one rule."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn.modules import batchnorm, conv, instancenorm, pooling

from attribution.errors import LayerError
from attribution.inputs.inputs import Inputs
from attribution.layer_name import LayerName
from attribution.layers.grids import MOST_LEADING, Shape, patch_grids, stretch
from attribution.layers.names import find, not_per_image
from attribution.layers.trace import Stop, Survey, survey

Side = Literal["first", "last"] | None
"""Whether channels come before the places or behind them; ``None``: nothing tells."""

_FIRST = (
    conv._ConvNd,
    batchnorm._NormBase,
    instancenorm._InstanceNorm,
    nn.GroupNorm,
    pooling._MaxPoolNd,
    pooling._AvgPoolNd,
    pooling._AdaptiveMaxPoolNd,
    pooling._AdaptiveAvgPoolNd,
)
_LAST = (nn.Embedding, nn.MultiheadAttention, nn.RNNBase, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


@dataclass(frozen=True)
class Axes:
    """Where examples and channels lie in a tensor; the other axes are places.

    Attributes:
        examples: 0, or 1 of tokens whose sequence comes first, (L, N, D).
        channels: Another axis.
    """

    examples: int = 0
    channels: int = 1

    def first(self, tensor: Tensor) -> Tensor:
        """(N, D, *places); a view, and the tensor itself where it has that form."""
        if (self.examples, self.channels) == (0, 1):
            return tensor
        return tensor.movedim((self.examples, self.channels), (0, 1))

    def __str__(self) -> str:
        if self.examples == 1:
            return "(L, N, D)" if self.channels == 2 else "(D, N, L)"
        return "(N, D, …)" if self.channels == 1 else f"channels on axis {self.channels}"


def axes_of(
    model: nn.Module,
    inputs: Inputs,
    layer: str,
    shape: Shape,
    rows: int,
    *,
    stated: int | None = None,
    owner: str = "Activations",
) -> Axes:
    """Where examples and channels lie in what a layer gives for all examples, or is given.

    The examples' axis is the one that grows with them. Channels come first, (N, D, *places), or last,
    (N, *places, D). In this order it is told by: the layer itself, if it computes on one axis (convolutions and batch
    norms on axis 1, linear layers and layer norms on the last one); sizes, where one of three axes holds the channels
    of a grid that came before and the other its places; the last module in the layer that gives this shape; the other
    modules that give or take this shape; and the image's aspect.

    Args:
        model: Isolated, eval mode.
        inputs: Of the call.
        layer: As the user writes it.
        shape: Of the tensor.
        rows: Examples in it.
        stated: The channels' axis, if the user says it.
        owner: Of the field ``channel_axis`` that would say it.

    Raises:
        LayerError: No axis is that of the examples, ``stated`` is none of the others, or nothing tells channels from
            places.
    """
    examples, side = told(model, inputs, layer, shape, rows)
    if stated is not None:
        return Axes(examples, _checked(layer, shape, stated, examples, owner))
    rest = [axis for axis in range(len(shape)) if axis != examples]
    if len(rest) < 2:
        return Axes(examples, rest[0] if rest else 0)
    if side is None:
        first, last = ("N, D, L", "N, L, D") if not examples else ("D, N, L", "L, N, D")
        raise LayerError(
            f"layer {layer!r} gives shape {tuple(shape)}, which may be ({first}) or ({last}); say which axis is that "
            f"of the channels: {owner}(channel_axis={rest[0]}) or {rest[-1]}"
        )
    return Axes(examples, rest[0] if side == "first" else rest[-1])


def told(model: nn.Module, inputs: Inputs, layer: str, shape: Shape, rows: int) -> tuple[int, Side]:
    """The axis of the examples, and on which side of the places the channels are; see `axes_of`.

    Raises:
        LayerError: No axis is that of the examples.
    """
    name, module = find(model, layer)
    every = tuple(dict.fromkeys(inputs.places(each) for each in inputs.explained))
    if len(shape) > 3 and _only_first(model, shape, every):  # no forward is needed to see it
        return examples_axis(layer, shape, rows, None), "first"
    stops = survey(model, inputs)
    stop = next((stop for stop in stops if stop.module is module), None)
    examples = examples_axis(layer, shape, rows, None if stop is None else stop.form_of(name))
    rest = [axis for axis in range(len(shape)) if axis != examples]
    if len(rest) < 2:
        return examples, "first"
    one = (1, *(shape[axis] for axis in rest))
    shapes = {one, (one[1], 1, *one[2:])} if examples else {one}
    return examples, _side(stops, stop, name, one, shapes, every)


def _only_first(model: nn.Module, shape: Shape, every: Sequence[tuple[int, ...]]) -> bool:
    """Whether no module can compute on a last axis of this size, and the inputs' places tell the same."""
    if {_by_places(shape, places) for places in every} - {None} != {"first"}:
        return False
    computes = (nn.Linear, nn.LayerNorm, nn.RMSNorm, *_LAST)
    return not any(
        isinstance(module, computes) and (isinstance(module, _LAST) or shape[-1] in _last_axes(module))
        for module in model.modules()
    )


def _last_axes(module: nn.Module) -> Sequence[object]:
    """Sizes of the last axis that a linear layer or a layer norm takes or gives."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    return tuple(module.normalized_shape)[-1:] if isinstance(module, nn.LayerNorm | nn.RMSNorm) else ()


def channels_last(stops: Survey, stop: Stop, image: Shape) -> bool:
    """Whether a module of the survey gives (N, h, w, D); ``image``: the places of the input."""
    if stop.shape is None or len(stop.shape) != 4:
        return False
    return _side(stops, stop, LayerName(stop.name, stop.name), stop.shape, {stop.shape}, [tuple(image)]) == "last"


def alone(model: nn.Module, inputs: Inputs, layer: str) -> tuple[int, ...] | None:
    """The shape of what a name means, for one example; ``None`` where it is no tensor, or never came."""
    name, module = find(model, layer)
    stop = next((stop for stop in survey(model, inputs) if stop.module is module), None)
    return None if stop is None else stop.form_of(name)


def examples_axis(layer: str, shape: Shape, examples: int, alone: Shape | None) -> int:
    """0, or 1 where the sequence comes first: (L, N, D).

    Args:
        layer: As the user writes it.
        shape: For all examples.
        examples: N.
        alone: The shape for one example; ``None``: not known.

    Raises:
        LayerError: Neither axis is that of the examples: windows, or parts of the batch, lie there.
    """
    first, second = tuple(shape[:1]) == (examples,), len(shape) == 3 and shape[1] == examples
    if second and alone is not None and len(alone) == 3:
        first, second = first and (alone[0] == 1 or alone[1] != 1), alone[1] == 1
    if not (first or second):
        raise not_per_image(layer, shape, examples)
    return 0 if first else 1


def _checked(layer: str, shape: Shape, stated: int, examples: int, owner: str) -> int:
    axis = stated + len(shape) if stated < 0 else stated
    if not 0 <= axis < len(shape) or axis == examples:
        raise LayerError(
            f"layer {layer!r} gives shape {tuple(shape)}, and {owner}.channel_axis is {stated}: "
            + ("that is the axis of the examples" if axis == examples else "there is no such axis")
        )
    return axis


def _side(
    stops: Survey,
    stop: Stop | None,
    name: LayerName,
    shape: Shape,
    shapes: set[tuple[int, ...]],
    every: Sequence[tuple[int, ...]],
) -> Side:
    """Of (1, a, …, b), which has any of the forms ``shapes`` in the model; ``every``: the places of each input."""
    if stop is not None and stop.leaf and (isinstance(stop.module, _FIRST) or _flattens(stop.module)):
        return "first"
    if len(shape) == 3 and (found := _by_sizes(stops, shape, {len(places) for places in every if places})) is not None:
        return found
    sides = set[Side]().union(*(_sides(stops).get(form, ()) for form in shapes))
    if len(sides) > 1:
        inside = [each for each in stops if stop is not None and _within(each, stop)]
        for inner in inside if name.entry else reversed(inside):
            form = inner.input_shape if name.entry else inner.shape
            if form in shapes and (found := _by_type(inner, form)) is not None:
                return found
    if len(sides) != 1:
        torn = len(sides) > 1
        sides = {side for places in every if (side := _by_places(shape, places, torn=torn)) is not None}
    return sides.pop() if len(sides) == 1 else None


def _sides(stops: Survey) -> Mapping[tuple[int, ...], set[Side]]:
    """What modules that give or take a tensor of a shape take for its channels; gathered once."""
    if not stops.sides:
        for stop in stops:
            for form in (stop.shape, stop.input_shape) if stop.leaf else ():
                if form is not None and (found := _by_type(stop, form)) is not None:
                    stops.sides.setdefault(form, set()).add(found)
    return stops.sides


def _by_places(shape: Shape, places: Shape, *, torn: bool = False) -> Side:
    """Of (1, a, …, b): what an input with these places tells, where no module does; ``torn``: where modules differ."""
    if len(shape) == 2 + len(places):
        plane = len(places) == 2 and 0 not in shape
        if plane and shape[1] * shape[2] > 1 and _aspect(shape[1:3], shape[2:4], places):
            return "last"
        return "first" if not torn or (plane and _aspect(shape[2:4], shape[1:3], places)) else None
    if len(shape) == 3 and len(places) == 2:
        rows, columns = bool(patch_grids(shape[1], places)), bool(patch_grids(shape[2], places))
        if rows != columns:
            return "last" if rows else "first"
    return None


def _aspect(one: Shape, other: Shape, image: Shape) -> bool:
    """Whether the first of two pairs of axes has the aspect of the image, and the second has not."""
    return stretch(one, image) < 1.2 and stretch(other, image) > 1.25


def _by_sizes(stops: Survey, shape: Shape, ranks: set[int]) -> Side:
    """Of (1, a, b): whether a grid (1, D, *p) of a convolution has a = D and b = Π p, or b = D and a = Π p (+ leading).

    Leading tokens (class, registers) count only where no grid fits without them.

    Args:
        stops: The modules.
        shape: (1, a, b).
        ranks: How many axes of places the inputs have, and so the grids.
    """
    grids = {
        (stop.shape[1], math.prod(stop.shape[2:]))
        for stop in stops
        if stop.leaf and isinstance(stop.module, _FIRST) and stop.shape and len(stop.shape) - 2 in ranks
    }
    _, a, b = shape
    for most in (0, MOST_LEADING):
        first = any(a == d and 0 <= b - p <= most for d, p in grids)
        last = any(b == d and 0 <= a - p <= most for d, p in grids)
        if first != last:
            return "first" if first else "last"
        if first:
            return None
    return None


def _flattens(module: nn.Module) -> bool:
    """Places alone, so that what it gives is (N, D, L)."""
    return isinstance(module, nn.Flatten) and module.start_dim == 2


def _within(inner: Stop, stop: Stop) -> bool:
    return inner.leaf and (inner.module is stop.module or inner.name.startswith(f"{stop.name}."))


def _by_type(stop: Stop, shape: Sequence[int] | None) -> Side:
    """Which axis a leaf computes on, by its class; subclasses with a forward of their own tell nothing."""
    module = stop.module
    if not shape:
        return None
    if isinstance(module, _FIRST) or _flattens(module):
        return "first"
    if isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward:
        return "last" if shape[-1] in (module.in_features, module.out_features) else None
    if isinstance(module, nn.LayerNorm | nn.RMSNorm) and type(module).forward in (
        nn.LayerNorm.forward,
        nn.RMSNorm.forward,
    ):
        return "last" if tuple(module.normalized_shape) == (shape[-1],) else None
    return "last" if isinstance(module, _LAST) else None
