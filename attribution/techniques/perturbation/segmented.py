"""``Segmented``: what the techniques share that cover segments of the input."""

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor

from attribution.inputs.inputs import Inputs
from attribution.techniques import each_input
from attribution.techniques.perturbation import segments as maps_of
from attribution.techniques.perturbation.family import Perturbation, places_of
from attribution.techniques.perturbation.segments import One

Segments = One | Mapping[str, One]


@dataclass(frozen=True, kw_only=True, eq=False)
class Segmented(Perturbation, ABC):
    """Choices of a technique that covers segments of the input, all channels of them.

    All places of a segment have one value in the map. Segments are numbered from 0, in the order of their integers.

    Args:
        segments: Which segment each place belongs to: a map of integers (*places), common to all examples, or
            (N, *places); ``"slic"``: about 50 superpixels of each image, which needs scikit-image; an int: a grid of
            so many along each place axis; ``None``: of 8, and of (N, F) each feature. A mapping by the names or indices
            of several inputs has one for each.
        baseline: What covers; see `Perturbation`. The σ of ``"blur"`` is 10 places.
        input: The one input that is covered; ``None``: every explained one, each alone.
    """

    segments: Segments = None

    def __post_init__(self) -> None:
        super().__post_init__()
        own = type(self).__name__
        object.__setattr__(self, "segments", each_input.checked(own, "segments", self.segments, maps_of.checked))

    def spread(self, places: int) -> tuple[float, ...]:
        """10, as in the paper that the blurred baseline comes from."""
        return (10.0,) * places

    def check(self, inputs: Inputs) -> None:
        """The segments and the baseline fit each input that is covered."""
        super().check(inputs)
        own = type(self).__name__
        for name in self.covered(inputs):
            x = inputs.values[name]
            one = each_input.named(own, "segments", self.segments, name, inputs)
            maps_of.check(own, one, name, x.shape, places_of(x))

    def rows(self, part: slice, inputs: Inputs) -> Self:
        """A baseline and segments of each example are cut to those of the part."""
        found, held = super().rows(part, inputs), self.segments
        ranks = {name.removeprefix("input."): len(places_of(inputs.values[name])) for name in self.covered(inputs)}

        def cut(one: One, axes: set[int]) -> One:
            return one[part] if isinstance(one, Tensor) and one.ndim - 1 in axes and len(one) > 1 else one

        if isinstance(held, Mapping):
            return replace(found, segments={name: cut(one, {ranks.get(name, -1)}) for name, one in held.items()})
        new = cut(held, {*ranks.values()})
        return found if new is held else replace(found, segments=new)

    def labels(self, inputs: Tensor, name: str = "input") -> Tensor:
        """(1 or N, *places), the number of each place's segment; one choice that all backends share."""
        one: One = each_input.named(type(self).__name__, "segments", self.segments, name)
        return maps_of.labelled(one, inputs, places_of(inputs))
