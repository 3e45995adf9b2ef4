"""The verdicts of comparisons, as a page tells them."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, log10

from attribution.agreement import Agreement
from attribution.comparison import Comparison

MOST = 40
"""Maps that are told one by one; of more of them those that differ, and then those of the largest differences."""

_LEAST, _MOST = -16.0, 0.0  # powers of ten at the ends of the drawn scale


@dataclass(frozen=True)
class Verdict:
    """Of one map by two backends.

    Attributes:
        technique: By its name.
        words: What it is called.
        of: Which map.
        backends: Which two.
        difference: Largest, as a part of the larger map's maximum.
        allowed: What is put down to rounding, likewise.
        word: "agrees", "differs", "both zero", or "too small to tell": no value is above the tolerance.
        place: Of the difference on a scale of 100 from 1e-16 to 1; of 0 its lower end.
        limit: Of what is allowed, likewise.
    """

    technique: str
    words: str
    of: str
    backends: str
    difference: str
    allowed: str
    word: str
    place: float
    limit: float


@dataclass(frozen=True)
class Verdicts:
    """All of an item.

    Attributes:
        lines: In order; of more than 40 maps the 40 that are furthest apart.
        told: What they say together.
        holds: Whether all agree.
        left_out: Backends that were not asked, and why.
    """

    lines: list[Verdict]
    told: str
    holds: bool
    left_out: list[str]


def verdicts(comparisons: Mapping[str, Comparison]) -> Verdicts:
    """Of comparisons by the names of techniques."""
    lines = [
        _verdict(name, compared, pair, agreement)
        for name, compared in comparisons.items()
        for pair, agreements in compared.agreements.items()
        for agreement in agreements
    ]
    wrong = sum(line.word == "differs" for line in lines)
    proved = [line for line in lines if line.word in ("agrees", "differs")]
    largest = max((each.largest for each in comparisons.values()), default=0.0)
    if wrong:
        told = f"{wrong} of {len(lines)} maps differ between backends by more than rounding."
    elif not proved:
        told = "All maps are zero everywhere or too small to tell, so that nothing was compared."
    else:
        maps = f"all {len(proved)} maps" if len(proved) > 1 else "the map"
        told = f"The backends agree on {maps}; the largest difference is {largest:.1e} of a map’s maximum."
    if len(lines) > MOST:
        told += f" Of {len(lines)} maps these {MOST} are furthest apart:"
        lines = sorted(lines, key=lambda line: (line.word != "differs", -line.place))[:MOST]
    left_out = [f"{name}: {why}" for each in comparisons.values() for name, why in each.left_out.items()]
    return Verdicts(lines, told, not wrong, list(dict.fromkeys(left_out)))


def _nothing(agreement: Agreement) -> str:
    return "too small to tell" if agreement.scale else "both zero"


def _verdict(name: str, compared: Comparison, pair: tuple[str, str], agreement: Agreement) -> Verdict:
    allowed = agreement.tolerance / agreement.scale if agreement.scale else 0.0
    word = _nothing(agreement) if agreement.degenerate else "agrees" if agreement.holds else "differs"
    return Verdict(
        technique=name,
        words=compared.attributions[pair[0]].technique.words,
        of=agreement.name.replace(" · image 0", ""),
        backends=" and ".join(pair),
        difference=f"{agreement.scaled:.1e}" if agreement.scaled else "0",
        allowed=f"{allowed:.0e}",
        word=word,
        place=_place(agreement.scaled),
        limit=_place(allowed),
    )


def _place(value: float) -> float:
    if not isfinite(value) or value <= 0:
        return 0.0 if value == 0 else 100.0
    return round(100 * (min(max(log10(value), _LEAST), _MOST) - _LEAST) / (_MOST - _LEAST), 1)
