"""The same question in float64, to which answers in float32 or half are held."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from attribution.agreement import coarser
from attribution.api import explain
from attribution.comparison.judgement import Judgement
from attribution.comparison.kinks import KICK
from attribution.comparison.rounding import judge_all, shaken, shaken_model
from attribution.errors import InputError
from attribution.inputs.inputs import Inputs
from attribution.result import Attribution
from attribution.running.execution import Execution

_SEED = 1


def held_to_float64(
    model: nn.Module, inputs: Any, answers: Mapping[str, Attribution], *, execution: Execution = Execution()
) -> dict[str, list[Judgement]]:
    """Rounding or bug, for answers of several backends to one question about maps with kinks.

    The hooks backend answers for ``deepcopy(model).double()``, and for two models that are shaken by `KICK` eps, of
    which the second is the mirror image of the first; that is three times the question in float64.

    Args:
        model: The one that was asked.
        inputs: Those that were explained.
        answers: By backend, in float32 or half, all of the score that the first one settled.
        execution: As it was asked, but for autocast.

    Returns:
        By backend, one judgement per layer × image × target.

    Raises:
        InputError: The answers are in float64.
    """
    first = next(iter(answers.values()))
    dtype = coarser(*(map_.dtype for each in answers.values() for map_ in each.raw.values()), execution.autocast)
    if dtype == torch.float64:
        raise InputError("the answers are in float64, and so would be what judges them")
    given, plain = Inputs.of(inputs), replace(execution, autocast=None)

    def ask(times: float) -> Attribution:
        generator = torch.Generator().manual_seed(_SEED)
        moved = shaken_model(model, dtype, seed=_SEED, times=times) if times else deepcopy(model).double()

        def shown(name: str, value: Any) -> Any:
            if not (isinstance(value, Tensor) and value.is_floating_point()):
                return value
            return shaken(value, dtype, generator, times=times if name in given.explained else 0.0)

        values = {name: shown(name, value) for name, value in given.values.items()}
        return explain(moved, replace(given, values=values), first.technique, target=first.score, execution=plain)

    oracle, *beside = (ask(times) for times in (0.0, KICK, -KICK))
    return {backend: judge_all(answer, oracle, beside) for backend, answer in answers.items()}
