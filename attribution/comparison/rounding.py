"""How far rounding alone takes a map from its float64 twin: what is nearer is rounding, what is further a bug."""

from collections.abc import Sequence
from copy import deepcopy
from math import isfinite

import torch
from torch import Tensor, nn

from attribution.agreement import agree
from attribution.comparison import kinks
from attribution.comparison.judgement import SHARP, largest
from attribution.comparison.judgement import Judgement as Judgement
from attribution.comparison.judgement import Verdict as Verdict
from attribution.errors import InputError
from attribution.result import Attribution
from attribution.technique import Technique, paired_maps
from attribution.techniques import FilterVisualization, Occlusion
from attribution.techniques.filter_visualization import FIRST_STEP

PLAIN = 2.0
"""The factor of `judge` where a plain run stands beside."""

_FACTORS = dict.fromkeys(("activations", "grad_cam", "occlusion", "filter_visualization"), 16.0)
_TRANSFORMED = 8.0
_HALF = 0.25


def budget_factor(technique: Technique, dtype: torch.dtype) -> float:
    """How many times the effect of one rounding per weight the roundings of a whole run may have.

    float32: 16; filters with random transforms 128, since the places they sample are rounded too. float16 and bfloat16:
    a quarter, since their products are added up in float32. Measured on twenty torchvision families;
    ``docs/agreement.md`` tells how much of it the worst of them uses.

    Args:
        technique: One for which a factor is stated.
        dtype: The coarsest on the way: that of the model, of autocast, or ``Attribution.computes_in``.

    Raises:
        InputError: Nothing is stated for this technique, or the dtype does not float.
    """
    name = technique.name
    if name not in _FACTORS:
        raise InputError(f"no error budget is stated for {name!r}, only for {', '.join(_FACTORS)}; give plain=…")
    if not dtype.is_floating_point:
        raise InputError(f"{dtype} does not round; give a floating dtype")
    moved = isinstance(technique, FilterVisualization) and not technique.transforms.idle
    return _FACTORS[name] * (_TRANSFORMED if moved else 1.0) * (_HALF if torch.finfo(dtype).bits < 32 else 1.0)


def shaken_model(model: nn.Module, dtype: torch.dtype, *, seed: int, times: float = 1.0) -> nn.Module:
    """A float64 copy whose every weight and buffer w is w · (1 + ``times`` · eps(dtype) · standard normal).

    A product that is rounded is the exact product of factors that are a little off (N. J. Higham, *Accuracy and
    Stability of Numerical Algorithms*, 2002, chapter 3). So what such factors do to a map in exact arithmetic tells
    what rounding may do to it, however badly the net is conditioned.
    """
    copy, generator = deepcopy(model).double(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in [*copy.parameters(), *copy.buffers()]:
            if value.is_floating_point():
                value.copy_(shaken(value, dtype, generator, times=times))
    return copy


def shaken(inputs: Tensor, dtype: torch.dtype, generator: torch.Generator, *, times: float = 1.0) -> Tensor:
    """The same for a tensor: float64, each value times (1 + ``times`` · eps(dtype) · standard normal)."""
    noise = torch.randn(inputs.shape, generator=generator, dtype=torch.float64, device="cpu")
    return inputs.detach().double() * (1 + times * torch.finfo(dtype).eps * noise.to(inputs.device))


def judge(
    name: str,
    map_: Tensor,
    oracle: Tensor,
    beside: Sequence[Tensor],
    *,
    factor: float,
    dtype: torch.dtype,
    size: float = 0.0,
) -> Judgement:
    """Rounding or bug? max|map − oracle| ≤ factor · max(max|m − oracle|, eps(dtype) · max(max|oracle|, size)).

    Args:
        name: What is judged.
        map_: In any dtype, on any device; another shape than the oracle's is a bug.
        oracle: The same of the model in float64.
        beside: The maps m, by which the distance is measured: the oracle of shaken models, with `budget_factor`; or
            one plain run in the dtype that is judged, by the formula without any short cut, with `PLAIN`.
        factor: How many times as far off as these a map may be.
        dtype: The coarsest on the way.
        size: The largest value that a map is a difference of, where it is one.

    Raises:
        InputError: A map that stands beside has another shape than the oracle, or NaN.
    """
    pair = agree(name, map_, oracle, relative=0.0)
    marks = [agree(f"{name}, beside it", other, oracle, relative=0.0) for other in beside]
    for mark in marks:
        if not isfinite(mark.difference):
            raise InputError(f"{mark.name}: off by {mark.difference}; give finite answers to the same question")
    scale = largest(oracle)
    floor = torch.finfo(dtype).eps * max(scale, size)
    allowed = factor * max(floor, *(mark.difference for mark in marks), 0.0)
    near = isfinite(pair.difference) and pair.difference <= allowed
    return Judgement(
        pair.name, pair.difference, scale, allowed, "rounding" if near else "bug", 0 < scale >= SHARP * allowed
    )


def judge_all(
    result: Attribution,
    oracle: Attribution,
    shaken: Sequence[Attribution] = (),
    *,
    plain: Attribution | None = None,
) -> list[Judgement]:
    """One verdict per layer × image × target of a result; of filters, the first step, as in their agreement.

    For occlusion the size is the largest |score| of any class, as in its agreement. Maps with kinks (`kinks.kinked`:
    gradients of the inputs, and CAMs other than Grad-CAM that take gradients) are judged as `kinks.judge` says, beside
    answers of models that were shaken ``times=kinks.KICK``, and, of the same seeds, ``times=-kinks.KICK``.

    Args:
        result: float32 or half.
        oracle: The same technique, inputs and targets in float64.
        shaken: The oracle's answers on shaken models and inputs, one per seed; two or three will do.
        plain: Instead of these, a result of the same dtype that is known to be good; a mistake of both is not found.
            Of maps with kinks only ``typical`` is held to it, since another run is off at other places.

    Raises:
        InputError: The oracle or a shaken answer is not float64, there is neither or both of ``shaken`` and ``plain``,
            they answer another question, or no factor is stated for this technique.
    """
    if bool(shaken) == (plain is not None):
        raise InputError("give either answers of shaken models, or plain=…")
    for answer in (oracle, *shaken):
        if answer.computes_in != torch.float64:
            raise InputError(
                f"{answer!r} computes in {answer.computes_in}; ask model.double() by a backend that keeps float64"
            )
    technique, only = oracle.technique, FIRST_STEP if FIRST_STEP in oracle.raw else None
    size = largest(oracle.extras["largest_score"]) if isinstance(technique, Occlusion) else 0.0

    def pieces(answer: Attribution) -> list[tuple[str, Tensor, Tensor, torch.dtype]]:
        return paired_maps(answer, oracle, by_target=technique.needs_target, only=only)

    names = [name for name, *_ in pieces(oracle)]
    beside = [pieces(answer) for answer in ([plain] if plain else shaken)]
    for other in beside:
        if (found := [name for name, *_ in other]) != names:
            raise InputError(f"beside the oracle stands an answer with {found}; expected {names}")
    judgements = []
    for n, (name, map_, exact, dtype) in enumerate(pieces(result)):
        marks = [other[n][1] for other in beside] if names[n : n + 1] == [name] else []  # else: another question
        if kinks.kinked(technique):
            factor = PLAIN if plain else None
            judgements.append(kinks.judge(name, map_, exact, marks, dtype=dtype, plain=factor))
        else:
            factor = PLAIN if plain else budget_factor(technique, dtype)
            judgements.append(judge(name, map_, exact, marks, factor=factor, dtype=dtype, size=size))
    return judgements
