"""``LayerScore``: a channel or a single unit of a layer."""

from dataclasses import KW_ONLY, dataclass
from typing import Literal

import torch
from torch import Tensor

from attribution import numbers
from attribution.errors import ModelError, TargetError
from attribution.scores.outputs import described
from attribution.scores.parameters import index, word
from attribution.scores.score import Output, Score, per_row
from attribution.scores.values import mean_size


@dataclass(frozen=True, eq=False)
class LayerScore(Score):
    """A[n, channel, position] of a layer's output A (N, D, *p), or its mean or sum over the places p.

    The forward ends at the layer. The gradient of such a score with respect to the image is the neuron gradient.

    Args:
        layer: As ``model.named_modules()`` prints it.
        channel: Of axis 1; or several, as a tuple or a slice with an end such as ``slice(4, 8)``, which are kept as a
            tuple. Mean and sum are then over these channels too.
        position: One index per place axis; ``None``: all places.
        reduce: Over the places where no position is given: ``"mean"`` or ``"sum"``.

    Raises:
        TargetError: A field is of another form. When run: a channel or position is out of range.
        LayerError: The model has no such layer. When run: it never runs, runs several times, or gives no tensor.
    """

    layer: str
    channel: int | tuple[int, ...] | slice
    _: KW_ONLY
    position: tuple[int, ...] | None = None
    reduce: Literal["mean", "sum"] = "mean"

    def __post_init__(self) -> None:
        if not isinstance(self.layer, str) or not self.layer:
            raise TargetError(f"LayerScore.layer is {self.layer!r}; give a name of model.named_modules()")
        object.__setattr__(self, "channel", _channels(self.channel))
        word("LayerScore", "reduce", self.reduce, ("mean", "sum"))
        if self.position is not None:
            several = numbers.items(self.position)
            found = [numbers.integer(each) for each in ((self.position,) if several is None else several)]
            place = tuple(each for each in found if each is not None)
            if len(place) < len(found) or min(place, default=0) < 0:
                raise TargetError(f"LayerScore.position is {self.position!r}; give one int per place axis")
            object.__setattr__(self, "position", place)

    @property
    def of_layer(self) -> str | None:
        """The layer."""
        return self.layer

    def values(self, output: Output, examples: Tensor) -> Tensor:
        """(B, 1)."""
        units = self._units(output, len(examples))
        wide = units.to(torch.promote_types(units.dtype, torch.float32)).reshape(len(units), -1)
        return wide.mean(dim=1, keepdim=True) if self.reduce == "mean" else wide.sum(dim=1, keepdim=True)

    def scale(self, output: Output, examples: Tensor, matrix: Tensor) -> Tensor:
        """The mean of absolute values, or their sum."""
        units = self._units(output, len(examples))
        return mean_size(units) * (1 if self.reduce == "mean" else units[0].numel())

    def __str__(self) -> str:
        place = "" if self.position is None else f" at {', '.join(map(str, self.position))}"
        channels = self._channels
        word = f"channel {channels[0]}" if len(channels) == 1 else f"channels {', '.join(map(str, channels))}"
        return f"{self.layer} {word}{place}"

    @property
    def _channels(self) -> tuple[int, ...]:
        return (self.channel,) if isinstance(self.channel, int) else tuple(self.channel)  # type: ignore[arg-type]

    def _units(self, output: Output, rows: int) -> Tensor:
        if not isinstance(output, Tensor) or not output.is_floating_point() or output.ndim < 2:
            raise ModelError(f"layer {self.layer!r} gives {described(output)}; a unit is part of (N, D, *places)")
        per_row(output, rows, f"layer {self.layer!r}")
        if (most := max(self._channels)) >= output.shape[1]:
            raise TargetError(f"channel {most} is out of range; layer {self.layer!r} has {output.shape[1]}")
        views = [output[:, channel : channel + 1] for channel in self._channels]
        found = views[0] if len(views) == 1 else torch.cat(views, dim=1)
        if self.position is None:
            return found
        if len(self.position) != found.ndim - 2 or any(
            not 0 <= step < size for step, size in zip(self.position, found.shape[2:], strict=False)
        ):
            raise TargetError(f"position {self.position} does not lie in the places {tuple(found.shape[2:])}")
        for step in self.position:
            found = found.select(2, step)
        return found


def _channels(value: object) -> int | tuple[int, ...]:
    """One channel, or several.

    Raises:
        TargetError: It is no channel, names none, names one twice, or is a slice without an end.
    """
    if isinstance(value, slice):
        ends = (value.start or 0, value.stop, value.step or 1)
        if any(not isinstance(each, int) or each < 0 for each in ends):
            raise TargetError(f"LayerScore.channel is {value!r}; give a slice with an end, counted from 0")
        value = tuple(range(*ends))
    several = numbers.items(value)
    if several is None:
        return index("LayerScore", "channel", value)
    found = tuple(index("LayerScore", "channel", each) for each in several)
    if not found or len(set(found)) < len(found):
        raise TargetError(f"LayerScore.channel is {value!r}; give one channel, or several different ones")
    return found
