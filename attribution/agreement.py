"""When two maps count as equal: the rule of ``docs/conventions.md``, on plain tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import isfinite

import torch
from torch import Tensor

from attribution.errors import InputError

_RELATIVE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 2e-2, torch.bfloat16: 5e-2}

_ELSEWHERE = {torch.float32: 1e-4, torch.bfloat16: 1e-1}
"""On an accelerator, whose kernels differ more from one batch size to the next. An H100's maps of 18 architectures in
float32, TF32 off, are up to 5e-5 of their maximum off float64, where a CPU's are 1e-6 to 1e-5 off."""


def relative_tolerance(dtype: torch.dtype, *, host: bool = True) -> float:
    """The largest difference allowed between two maps, as a part of the larger map's maximum.

    float64: 1e-10 · float32: 1e-5 · float16: 2e-2 · bfloat16: 5e-2.

    Args:
        dtype: The coarsest on the way.
        host: Both maps were computed on a CPU; else float32: 1e-4 · bfloat16: 1e-1.
    """
    if dtype not in _RELATIVE:
        raise InputError(f"no tolerance is stated for {dtype}; compare maps in {', '.join(map(str, _RELATIVE))}")
    return _RELATIVE[dtype] if host else _ELSEWHERE.get(dtype, _RELATIVE[dtype])


@cache
def coarser(*dtypes: torch.dtype | None) -> torch.dtype:
    """The floating dtype with the fewest digits among those given, float64 where there is none."""
    known = [dtype for dtype in dtypes if dtype is not None and dtype.is_floating_point]
    return max(known, key=lambda dtype: torch.finfo(dtype).eps, default=torch.float64)


@dataclass(frozen=True)
class Agreement:
    """The verdict on one pair of maps.

    Attributes:
        name: What was compared, e.g. ``"features.28 · image 0 · target 967"``.
        difference: max|a − b|; infinite where the shapes differ, NaN where a value is NaN.
        scale: max(max|a|, max|b|), the size of the maps.
        tolerance: The largest ``difference`` that is put down to rounding, in the maps' own unit.
        degenerate: No value of either map is above the tolerance, so that any two maps as small would hold: nothing was
            proved, and the pair does not count.
        holds: ``difference`` ≤ ``tolerance``. NaN and infinity never hold.
    """

    name: str
    difference: float
    scale: float
    tolerance: float
    degenerate: bool
    holds: bool

    @property
    def scaled(self) -> float:
        """``difference / scale``, the figure to quote; 0 for a degenerate pair."""
        return 0.0 if self.degenerate else self.difference / self.scale


def agree(name: str, a: Tensor, b: Tensor, *, relative: float, absolute: float = 0.0) -> Agreement:
    """Compare two tensors: max|a − b| ≤ relative · max(max|a|, max|b|) + absolute.

    Args:
        name: What is compared.
        a: Any shape, any device; compared on the host in float64.
        b: The same shape as ``a``, else the pair does not hold.
        relative: Part of the larger maximum that is allowed.
        absolute: Allowed on top, in the unit of ``a``.
    """
    if a.shape != b.shape:
        return Agreement(f"{name} · shapes {tuple(a.shape)} and {tuple(b.shape)}", float("inf"), 1.0, 0.0, False, False)
    x, y = (tensor.detach().to("cpu", torch.float64) for tensor in (a, b))
    if not x.numel():
        return Agreement(name, 0.0, 0.0, 0.0, True, True)
    scale = torch.maximum(x.abs().max(), y.abs().max()).item()
    difference = (x - y).abs().max().item()
    tolerance = relative * scale + absolute
    holds = difference <= tolerance and isfinite(difference)
    return Agreement(name, difference, scale, tolerance, scale <= tolerance and isfinite(scale), holds)


def all_hold(agreements: Sequence[Agreement]) -> bool:
    """Every pair holds, and at least one of them proves something (is not degenerate)."""
    return all(a.holds for a in agreements) and any(not a.degenerate for a in agreements)


def _urgency(a: Agreement) -> tuple[bool, float]:
    """Sorts what differs or proves nothing first, then what is nearest to its tolerance."""
    return a.holds and not a.degenerate, -(a.difference / a.tolerance) if a.tolerance else 0.0


def table(agreements: Sequence[Agreement], *, most: int = 40) -> str:
    """One line per pair: name, scaled difference, tolerance on the same scale, verdict.

    Of more than ``most`` pairs those are told that differ or prove nothing, then those nearest to their tolerance, half
    of ``most`` in all at most, and how many of the rest agree.
    """
    if not agreements:
        return "nothing was compared"
    told = list(agreements)
    if len(told) > most:
        told = sorted(told, key=_urgency)[: max(1, most // 2)]
    width = max(len(a.name) for a in told)
    lines = []
    for a in told:
        verdict = "degenerate" if a.degenerate else "agrees" if a.holds else "DIFFERS"
        allowed = a.tolerance / a.scale if a.scale else 0.0
        lines.append(f"{a.name:<{width}}  {a.scaled:9.2e}  of {allowed:8.1e} allowed  {verdict}")
    if rest := len(agreements) - len(told):
        shown = {id(a) for a in told}
        holding = sum(a.holds for a in agreements if id(a) not in shown)
        lines.append(f"and {rest} more: {holding} agree" + f", {rest - holding} DIFFER" * (holding < rest))
    return "\n".join(lines)
