"""Timing that means something: synchronised, interleaved, disturbed pairs discarded."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median

import numpy as np

from benchmarks.devices import module, on_host

MOVED = 0.05
"""A pair counts as disturbed when the canary before and after it differ by more than this part."""

SPARE = 3
"""How many disturbed pairs a race makes up for."""

LONG = {"pairs": 3, "spare": 1}
"""What a race is given where one call runs 64 forwards or more, or takes long."""

WORTH = 8.0
"""Seconds of the slower side that a race of calls of unknown length is worth."""


DEVICE_WORTH = 1.5
"""Likewise on a device that is rented for minutes."""


def length(seconds: float, *, worth: float = WORTH) -> dict[str, int]:
    """Pairs for calls of this length: up to 21 of short ones, `LONG` for long ones."""
    pairs = min(21, int(worth / seconds))
    return {"pairs": pairs} if pairs > LONG["pairs"] else LONG


def timed(call: Callable[[], object], device: str) -> float:
    """Seconds for one call; on an accelerator from an idle device to an idle device."""
    _settle(device)
    start = time.perf_counter()
    call()
    _settle(device)
    return time.perf_counter() - start


@dataclass(frozen=True)
class Race:
    """Interleaved runs of two contestants in one process.

    Attributes:
        against: The contestant in the numerator.
        pairs: How many pairs count.
        discarded: How many did not, because the canary moved by more than `MOVED`.
        disturbed: Whether quiet pairs were too few, so that the disturbed ones count as well.
        ratio: Median of (seconds of ``against``) / (seconds of this row); above 1: this row is faster.
        low: Lower end of the 95 % bootstrap interval of that median.
        high: Upper end.
        seconds: Median of this row, scaled to the whole question.
        against_seconds: Median of the other, likewise.
    """

    against: str
    pairs: int
    discarded: int
    disturbed: bool
    ratio: float
    low: float
    high: float
    seconds: float
    against_seconds: float

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def race(
    call: Callable[[], object],
    other: Callable[[], object],
    *,
    against: str,
    canary: Callable[[], object],
    device: str,
    pairs: int,
    spare: int = SPARE,
    scale: float = 1.0,
    other_scale: float = 1.0,
) -> Race:
    """Run A B, B A, A B, … with a canary forward around each pair; both must be warm.

    Args:
        call: This row, A.
        other: What it is held against, B.
        against: B's name.
        canary: A dense forward whose time should not change.
        device: As torch names it.
        pairs: How many quiet pairs are wanted.
        spare: How many more are run to get them.
        scale: Factor from what A runs to the whole question.
        other_scale: Likewise for B.
    """
    quiet: list[tuple[float, float]] = []
    loud: list[tuple[float, float]] = []
    before = _canary(canary, device)
    while len(quiet) < pairs and len(quiet) + len(loud) < pairs + spare:
        order = (call, other) if (len(quiet) + len(loud)) % 2 == 0 else (other, call)
        first, second = (timed(contestant, device) for contestant in order)
        after = _canary(canary, device)
        a, b = (first, second) if order[0] is call else (second, first)
        moved = abs(after - before) / min(after, before) > MOVED
        (loud if moved else quiet).append((a * scale, b * other_scale))
        before = after
    disturbed = len(quiet) < pairs
    counted = quiet + loud if disturbed else quiet
    ratios = np.array([b / a for a, b in counted])
    low, high = interval(ratios)
    return Race(
        against=against,
        pairs=len(counted),
        discarded=0 if disturbed else len(loud),
        disturbed=disturbed,
        ratio=float(np.median(ratios)),
        low=low,
        high=high,
        seconds=median(a for a, _ in counted),
        against_seconds=median(b for _, b in counted),
    )


def interval(values: "np.ndarray[tuple[int], np.dtype[np.float64]]", draws: int = 2000) -> tuple[float, float]:
    """The 95 % bootstrap interval of the median, seeded."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(values, size=(draws, len(values))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return float(low), float(high)


def _canary(canary: Callable[[], object], device: str) -> float:
    return min(timed(canary, device) for _ in range(3))


def _settle(device: str) -> None:
    if not on_host(device):
        module(device).synchronize(device)
