"""RISE: which places matter, by how the score answers to random masks?"""

from dataclasses import dataclass
from typing import ClassVar, Self

from attribution.errors import InputError
from attribution.inputs.inputs import Inputs
from attribution.techniques.parameters import integer, one_or_several, real
from attribution.techniques.perturbation.family import Perturbation, places_of
from attribution.techniques.perturbation.random_masks import RandomMasks


@dataclass(frozen=True, kw_only=True, eq=False)
class RISE(Perturbation):
    r"""The mean of random masks, each weighted by the score of the input under it.

    map[p] = 1 / (masks · keep) · Σ over i of S(x · M[i] + b · (1 − M[i])) · M[i, p], with M[i, p] from 0 to 1.

    Sign and unit: in units of the score, an estimate of the mean score over masks that keep place p. So it is not
    negative where the score is not, and its differences from place to place say which places matter.
    ``extras["standard_error"]`` (N, T, *places) is that of the estimate; ``extras["masks"]`` (N,) how many were run. Of
    several explained inputs each is masked alone, and their extras carry the name: ``"standard_error input.0"``.

    Inputs are those of `Occlusion`, maps (N, T, *places). All examples get the same masks, of a generator of their own:
    neither the chunks nor the rest of the batch change an example's map.

    Args:
        masks: How many, at least 2. ``Execution.batch_size`` counts masked examples.
        cells: Of the grid that a mask is enlarged from, along all place axes or for each, at most the input's places.
        keep: Probability of a cell to be kept, above 0 and below 1.
        seed: Of the masks.
        error: Stop for an example once the largest standard error of each of its maps is at most this part of the map's
            largest |value|, looked at after every 64 masks; ``None``: run all.
        baseline: b, what is seen where a mask keeps nothing; see `Perturbation`. The σ of ``"blur"`` is 10 places.
        input: The one input that is masked; ``None``: every explained one.

    Raises:
        InputError: A field is out of range, or does not fit the input.

    Source: V. Petsiuk, A. Das, K. Saenko, *RISE: Randomized Input Sampling for Explanation of Black-box Models*, BMVC
    2018, equations 5 and 6 and section 3.2. Departs from the paper: cells have ⌈H / s⌉ places and not ⌊H / s⌋, as in
    the authors' code, so that masks are never smaller than the input; examples share masks.
    """

    name: ClassVar[str] = "rise"
    title: ClassVar[str] = "RISE"
    has_zero: ClassVar[bool] = False

    masks: int = 4000
    cells: int | tuple[int, ...] = 7
    keep: float = 0.5
    seed: int = 0
    error: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("masks", 2), ("seed", 0)):
            object.__setattr__(self, name, integer("RISE", name, getattr(self, name), least=least))
        object.__setattr__(self, "cells", one_or_several("RISE", "cells", self.cells))
        object.__setattr__(self, "keep", real("RISE", "keep", self.keep, zero=False, below=1.0))
        if self.error is not None:
            object.__setattr__(self, "error", real("RISE", "error", self.error, zero=False))

    @property
    def signed(self) -> bool:
        """A mean of scores has no sign that means anything."""
        return False

    def spread(self, places: int) -> tuple[float, ...]:
        """10, as in the paper that the blurred baseline comes from."""
        return (10.0,) * places

    def check(self, inputs: Inputs) -> None:
        """The grid is no finer than each masked input, and the baseline fits."""
        super().check(inputs)
        for name in self.covered(inputs):
            places = places_of(inputs.values[name])
            cells = self.grid(len(places))
            if len(cells) != len(places) or any(s > size for s, size in zip(cells, places, strict=True)):
                raise InputError(
                    f"RISE.cells is {self.cells}, and {name!r} has the places {places}; give one int, or one for each "
                    "place axis, of at most its size"
                )

    def grid(self, axes: int) -> tuple[int, ...]:
        """Cells along each of so many place axes."""
        return self.cells if isinstance(self.cells, tuple) else (self.cells,) * axes

    def drawn_masks(self, places: tuple[int, ...]) -> RandomMasks:
        """The masks of an input with these places; the one choice that all backends share."""
        return RandomMasks.drawn(self.masks, self.grid(len(places)), places, self.keep, self.seed)

    @classmethod
    def example(cls) -> Self:
        """Few masks for the small models' images."""
        return cls(masks=12, cells=4)
