"""``Judgement``: whether a map's distance from its float64 twin is rounding or a bug."""

from dataclasses import dataclass
from math import inf, isfinite
from typing import Literal

from torch import Tensor

Verdict = Literal["rounding", "bug"]

SHARP = 100.0
"""How many times as large as its budget a map is, where an error of 1 % of it is seen."""


@dataclass(frozen=True)
class Judgement:
    """Where the distance of a map from its float64 twin comes from.

    Attributes:
        name: What was judged, e.g. ``"layer4 · image 0 · target 7"``.
        error: max|map − oracle|; infinite where the shapes differ, NaN where a value is NaN.
        scale: max|oracle|.
        allowed: The largest ``error`` that is put down to rounding, in the map's own unit.
        verdict: ``"rounding"`` where ``error`` ≤ ``allowed`` and ``typical`` ≤ ``typical_allowed``, else ``"bug"``. NaN
            and infinity are a bug.
        sharp: An error of 1 % is a bug: ``scale`` ≥ 100 · ``allowed``, or median|oracle| ≥ 100 · ``typical_allowed``.
            Where the net is so badly conditioned that more is allowed, ``"rounding"`` proves little.
        typical: Of maps with kinks, median|map − oracle|.
        typical_allowed: Likewise, the largest ``typical`` that is put down to rounding.
    """

    name: str
    error: float
    scale: float
    allowed: float
    verdict: Verdict
    sharp: bool
    typical: float = 0.0
    typical_allowed: float = inf

    @property
    def scaled(self) -> float:
        """``error / scale``, the figure to quote; infinite where the oracle is zero."""
        return self.error / self.scale if self.scale else float("inf")

    def __str__(self) -> str:
        typical = f"median {self.typical:.1e} of {self.typical_allowed:.1e}, " if isfinite(self.typical_allowed) else ""
        return f"{self.name}  {typical}largest {self.error:.1e} of {self.allowed:.1e} allowed  {self.verdict}"


def largest(map_: Tensor) -> float:
    """max|map|, and 0 of a map without values."""
    return map_.detach().abs().max().item() if map_.numel() else 0.0
