"""``AveragedGradient``: a weighted sum of gradients of the score, taken at points in input space."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from attribution.inputs.inputs import Inputs
from attribution.technique import Kind, Maps, Technique
from attribution.techniques import each_input
from attribution.techniques.gradient.baselines import comparable
from attribution.techniques.parameters import choice

Channels = Literal["none", "sum", "max"]
"""What becomes of the inputs' channels: kept, added up, or of each place the value of the largest |value|."""

CUT = 0.01
"""Which part of a map's values a figure does not tell apart."""


@dataclass(frozen=True)
class Point:
    """Where one gradient of each example is taken, and what becomes of it.

    Attributes:
        inputs: As many examples as the user's.
        weight: By which the gradient is multiplied before the sum.
        factor: By explained input, a tensor of its shape by which the gradient is multiplied; ``None``: by nothing.
    """

    inputs: Inputs
    weight: float = 1.0
    factor: Mapping[str, Tensor] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class AveragedGradient(Technique, ABC):
    r"""raw = factor · Σ over points p of weight[p] · ∂S/∂x at p · factor[p].

    The family holds choices: a technique says where gradients are taken, a backend takes them. Raw maps are
    (N, T, C, …) with the shape of the inputs behind the targets, one for each explained input. Inputs (N, F) have no
    channels, so that their maps are (N, T, F).

    Args:
        channels: ``"none"`` keeps them. ``"sum"`` adds them up. ``"max"`` keeps, of each place, the channel whose
            absolute value is largest, with its sign.
    """

    kind: ClassVar[Kind] = "heatmap"
    needs_target: ClassVar[bool] = True
    compares_scores: ClassVar[bool] = False
    formula: ClassVar[tuple[str, ...]] = ("channels",)
    """Fields that say what becomes of the sums: techniques of one class that differ in nothing else share them."""

    channels: Channels = "none"

    def __post_init__(self) -> None:
        own = type(self).__name__
        object.__setattr__(self, "channels", choice(own, "channels", self.channels, ("none", "sum", "max")))

    @property
    def signed(self) -> bool:
        """A gradient may be negative."""
        return True

    @property
    def samples(self) -> int:
        """How many points there are."""
        return 1

    @abstractmethod
    def points(self, inputs: Inputs) -> Iterator[Point]:
        """Where gradients are taken: `samples` points. No gradient is taken here.

        None is kept here either, since a backend may want its memory.
        """

    def factor(self, inputs: Inputs) -> Mapping[str, Tensor] | None:
        """By explained input, a tensor of its shape by which the sum is multiplied; ``None``: by nothing."""
        return None

    def rows(self, part: slice, inputs: Inputs) -> Self:
        """A field ``baseline`` that has one row for each example is cut to those of the part."""
        if all(field.name != "baseline" for field in fields(self)):
            return self
        return each_input.of_part(self, "baseline", part, inputs, inputs.explained)

    def told(self, gap: Tensor, change: Tensor) -> dict[str, Tensor]:
        """The extras of a technique whose maps add up to a change of the score, but for a gap; both (N, T).

        A gap beside no change at all is infinite.
        """
        return {"gap": gap, "relative_gap": torch.where(gap == 0, gap, gap / change.abs())}

    def finish(self, raw: Maps, inputs: Inputs) -> Maps:
        """Channels as ``channels`` says, the same for every backend."""
        axes = {inputs.key(name): inputs.axes[name].split() for name in inputs.explained}
        return {key: self._reduced(map_, axes[key], self.channels) for key, map_ in raw.items()}

    def drawn(self, maps: Mapping[str, Tensor]) -> tuple[Maps, str]:
        """Channels that are kept are added up; the largest values are cut, since single pixels outshine all others."""
        kept = self.channels == "none"
        planes = {name: map_.sum(dim=2) if kept and map_.ndim > 3 else map_ for name, map_ in maps.items()}
        words = f"the largest {CUT:.0%} cut"
        return {name: _cut(plane) for name, plane in planes.items()}, f"sum over channels, {words}" if kept else words

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._held() == other._held()

    def __hash__(self) -> int:
        return hash((type(self), self._held()))

    @property
    def sums(self) -> Hashable:
        """Equal for techniques that take the same sums of gradients at the same points."""
        return type(self), self._held(without=self.formula)

    def _held(self, without: Sequence[str] = ()) -> tuple[object, ...]:
        """The fields; a baseline may be a tensor, which compares by value."""
        return tuple(comparable(getattr(self, field.name)) for field in fields(self) if field.name not in without)

    @staticmethod
    def _reduced(map_: Tensor, axes: list[str], channels: Channels) -> Tensor:
        """(N, T, C, …), or with the channels where the axes of the inputs have them, shifted by the targets' axis."""
        if channels == "none" or "c" not in axes:
            return map_
        axis = axes.index("c") + 1
        if channels == "sum":
            return map_.sum(dim=axis)
        return map_.gather(axis, map_.abs().argmax(dim=axis, keepdim=True)).squeeze(axis)


def _cut(map_: Tensor) -> Tensor:
    """(N, T, …) within ± the value that `CUT` of each map's |values| exceed, unless the rest is zero."""
    sizes = map_.flatten(2).abs()
    reach = sizes.kthvalue(max(1, round((1 - CUT) * sizes.shape[2])), dim=2).values
    reach = torch.where(reach > 0, reach, sizes.amax(dim=2)).reshape(*reach.shape, *[1] * (map_.ndim - 2))
    return torch.minimum(torch.maximum(map_, -reach), reach)
