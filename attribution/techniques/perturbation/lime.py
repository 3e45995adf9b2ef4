"""A linear model of the score near the input, by a weighted regression on random coalitions of segments."""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from attribution.errors import InputError
from attribution.techniques.parameters import integer, real
from attribution.techniques.perturbation.segmented import Segmented


@dataclass(frozen=True, kw_only=True, eq=False)
class LIME(Segmented):
    r"""By how much each segment raises a linear model of the score that is fitted near the input.

    φ = argmin over φ, c of Σ over i of π[i] · (S(x in the coalition z[i], else b) − c − z[i] · φ)²,
    π[i] = exp(−(1 − √(k / K))² / (2 · width²)) of a coalition of k of K segments: 1 − √(k / K) is the cosine distance
    of z[i] from all segments. Each segment is there with probability ½;  map[p] = φ[segment of p].

    Sign and unit: positive where the segment raises the score, in units of the score; the values add up to nothing in
    particular. ``extras["standard_error"]`` (N, T, *places) comes from the residuals of the fit, one for each
    coalition: ± 1.96 of it is an interval of about 95 %. All examples get the same coalitions, of a generator of their
    own. ``Execution.batch_size`` counts covered examples.

    Args:
        samples: Coalitions, more than there are segments; the first has all. Each takes a forward.
        width: Of the kernel π; a small one fits near the input, on fewer coalitions in effect.
        seed: Of the coalitions.
        segments: Which segment each place belongs to; see `Segmented`.
        baseline: What stands for a segment that is absent; see `Perturbation`. The σ of ``"blur"`` is 10 places.
        input: The one input that is covered; ``None``: every explained one.

    Raises:
        InputError: A field is out of range, or does not fit the input; the coalitions do not tell the segments apart.

    Source: M. T. Ribeiro, S. Singh, C. Guestrin, *"Why Should I Trust You?": Explaining the Predictions of Any
    Classifier*, KDD 2016, equation 2 and algorithm 1, with the kernel of the authors' code for images. Departs from
    the paper: plain least squares of all segments, without a penalty and without a choice of K features.
    """

    name: ClassVar[str] = "lime"
    title: ClassVar[str] = "LIME"

    samples: int = 1000
    width: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("samples", 2), ("seed", 0)):
            object.__setattr__(self, name, integer("LIME", name, getattr(self, name), least=least))
        object.__setattr__(self, "width", real("LIME", "width", self.width, zero=False))

    def coalitions(self, segments: int) -> Tensor:
        """(samples, segments) bools on the host; one choice that all backends share.

        Raises:
            InputError: They do not tell the segments apart, as far as they weigh something.
        """
        source = torch.Generator("cpu").manual_seed(self.seed)
        draws = torch.rand((self.samples, segments), generator=source, dtype=torch.float64, device="cpu")
        found = draws < 0.5
        found[0] = True
        design = torch.cat([found.double(), torch.ones((self.samples, 1), dtype=torch.float64, device="cpu")], dim=1)
        if int(torch.linalg.matrix_rank(self.weights(found).sqrt()[:, None] * design)) < segments + 1:
            raise InputError(
                f"LIME.samples is {self.samples} and its width {self.width:g}, and coalitions of that weight do not "
                f"tell {segments} segments apart; give more samples, such as {4 * segments}, or a larger width"
            )
        return found

    def weights(self, coalitions: Tensor) -> Tensor:
        """π of coalitions (R, segments): (R,), in float64."""
        distance = 1 - coalitions.double().mean(1).sqrt()
        return (-(distance**2) / (2 * self.width**2)).exp()

    @classmethod
    def example(cls) -> Self:
        """Few coalitions of few segments."""
        return cls(samples=24, segments=2)
