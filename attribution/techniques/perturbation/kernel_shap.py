"""Shapley values of segments, by a weighted regression on random coalitions."""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from attribution.errors import InputError
from attribution.techniques.parameters import integer
from attribution.techniques.perturbation.segmented import Segmented


@dataclass(frozen=True, kw_only=True, eq=False)
class KernelSHAP(Segmented):
    r"""What each segment adds to the score: the coefficients of the score's best linear fit on coalitions of segments.

    φ = argmin over φ with Σ over j of φ[j] = S(x) − S(b) of Σ over i of (S(x in the coalition z[i], else b) − S(b) −
    z[i] · φ)², where a coalition of k of K segments is drawn with probability ∝ (K − 1) / (k (K − k)), and which ones
    uniformly;  map[p] = φ[segment of p].

    Sign and unit: as of `ShapleySampling`, whose values it approaches. ``extras["standard_error"]`` (N, T, *places)
    comes from the residuals of the fit, one for each coalition: ± 1.96 of it is an interval of about 95 %. All examples
    get the same coalitions, of a generator of their own. ``Execution.batch_size`` counts covered examples.

    Args:
        samples: Coalitions, more than there are segments. Each takes a forward.
        seed: Of the coalitions.
        segments: Which segment each place belongs to; see `Segmented`. At least 2.
        baseline: What stands for a segment that is absent; see `Perturbation`. The σ of ``"blur"`` is 10 places.
        input: The one input that is covered; ``None``: every explained one.

    Raises:
        InputError: A field is out of range, or does not fit the input; there are too few coalitions for the segments.

    Source: S. M. Lundberg, S.-I. Lee, *A Unified Approach to Interpreting Model Predictions*, NIPS 2017, theorem 2.
    Departs from the paper: coalitions are drawn by the kernel and weigh the same, as in Captum.
    """

    name: ClassVar[str] = "kernel_shap"
    title: ClassVar[str] = "Kernel SHAP"

    samples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("samples", 2), ("seed", 0)):
            object.__setattr__(self, name, integer("KernelSHAP", name, getattr(self, name), least=least))

    def coalitions(self, segments: int) -> Tensor:
        """(samples, segments) bools on the host; one choice that all backends share.

        Raises:
            InputError: They do not tell the segments apart.
        """
        if segments < 2:
            raise InputError("KernelSHAP compares segments, and there is one; give segments of at least 2 parts")
        source, sizes = torch.Generator("cpu").manual_seed(self.seed), torch.arange(1, segments, device="cpu").double()
        chances = 1 / (sizes * (segments - sizes))
        draws = torch.rand((self.samples, 1 + segments), generator=source, dtype=torch.float64, device="cpu")
        bounds = (chances / chances.sum()).cumsum(0)
        size = 1 + torch.searchsorted(bounds, draws[:, :1].contiguous()).clamp(max=segments - 2)
        found = draws[:, 1:].argsort(1).argsort(1) < size
        centred = found[:, :-1].double() - found[:, -1:].double()
        if int(torch.linalg.matrix_rank(centred)) < segments - 1:
            raise InputError(
                f"KernelSHAP.samples is {self.samples}, and these coalitions do not tell {segments} segments apart; "
                f"give more, such as {4 * segments}"
            )
        return found

    @classmethod
    def example(cls) -> Self:
        """Few coalitions of few segments."""
        return cls(samples=16, segments=2)
