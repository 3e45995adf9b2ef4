"""Shapley values of segments, by random orders in which they appear."""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from attribution.techniques.parameters import integer
from attribution.techniques.perturbation.segmented import Segmented


@dataclass(frozen=True, kw_only=True, eq=False)
class ShapleySampling(Segmented):
    r"""What each segment adds to the score, on average over orders in which segments take the place of the baseline.

    map[p] = mean over orders π of S(x with the baseline but in the segments up to that of p in π) − S(the same without
    that of p).

    Sign and unit: positive where the segment raises the score, in units of the score; of classes that is the
    probability, unless the target says otherwise. Over the segments the values add up to S(x) − S(baseline), whatever
    the orders. ``extras["standard_error"]`` (N, T, *places) is that of the mean over orders: ± 1.96 of it is an
    interval of about 95 %. Of several explained inputs each is covered alone, and its extra carries its name. All
    examples get the same orders, of a generator of their own. ``Execution.batch_size`` counts covered examples.

    Args:
        permutations: Orders, at least 2. Each takes a forward for all segments but one.
        seed: Of the orders; more of them begin with the same.
        segments: Which segment each place belongs to; see `Segmented`.
        baseline: What stands for a segment that is absent; see `Perturbation`. The σ of ``"blur"`` is 10 places.
        input: The one input that is covered; ``None``: every explained one.

    Raises:
        InputError: A field is out of range, or does not fit the input.

    Source: E. Štrumbelj, I. Kononenko, *An Efficient Explanation of Individual Classifications using Game Theory*, JMLR
    11, 2010, algorithm 1; J. Castro, D. Gómez, J. Tejada, *Polynomial calculation of the Shapley value based on
    sampling*, 2009. Departs from it: a baseline stands for absent features, not other examples.
    """

    name: ClassVar[str] = "shapley_sampling"
    title: ClassVar[str] = "Shapley values"

    permutations: int = 25
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("permutations", 2), ("seed", 0)):
            object.__setattr__(self, name, integer("ShapleySampling", name, getattr(self, name), least=least))

    def orders(self, segments: int) -> Tensor:
        """(permutations, segments) on the host; one choice that all backends share."""
        source = torch.Generator("cpu").manual_seed(self.seed)
        return torch.stack([torch.randperm(segments, generator=source, device="cpu") for _ in range(self.permutations)])

    @classmethod
    def example(cls) -> Self:
        """Few orders of few segments."""
        return cls(permutations=2, segments=3)
