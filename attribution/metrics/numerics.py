"""What a map owes to arithmetic: completeness, seeds, backends, precision."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from attribution import registry
from attribution.errors import ModelError
from attribution.isolation.context import unwrap
from attribution.metrics.metric import Better, Case, Metric, changed, largest_change
from attribution.result import Attribution
from attribution.techniques.parameters import integer


class CompletenessGap(Metric):
    """|Σ map − (S(x) − S(b))| / |S(x) − S(b)| of techniques that promise 0, as `IntegratedGradients` tells it."""

    name: ClassVar[str] = "completeness_gap"
    better: ClassVar[Better] = "lower"

    def measure(self, case: Case) -> Mapping[str, Tensor]:
        """(N, T), from ``extras["relative_gap"]``; nothing of techniques that tell none."""
        gap = case.given.extras.get("relative_gap") if isinstance(case.given, Attribution) else None
        return {} if gap is None else {"": gap.abs()}


@dataclass(frozen=True, kw_only=True)
class SeedSpread(Metric):
    """The largest max|a − b| / max|a| between the map a and those of other seeds; of techniques with a ``seed``.

    Args:
        seeds: How many others.
    """

    name: ClassVar[str] = "seed_spread"
    better: ClassVar[Better] = "lower"

    seeds: int = 3

    def __post_init__(self) -> None:
        object.__setattr__(self, "seeds", integer("SeedSpread", "seeds", self.seeds, least=1))

    def measure(self, case: Case) -> Mapping[str, Tensor]:
        """(N, T); nothing of a technique without a seed."""
        technique = case.technique
        if technique is None or all(field.name != "seed" for field in fields(technique)):
            return {}
        own = int(getattr(technique, "seed", 0))
        others = [case.again(technique=changed(technique, seed=own + 1 + k)).map for k in range(self.seeds)]
        return {"": torch.stack([largest_change(case.map, other) for other in others]).amax(dim=0)}


class BackendDifference(Metric):
    """max|a − b| / max|a| of the raw maps of two backends, by the other backend's name."""

    name: ClassVar[str] = "backend_difference"
    better: ClassVar[Better] = "lower"

    def measure(self, case: Case) -> Mapping[str, Tensor]:
        """(N, T) by backend; nothing of a technique with one."""
        given, technique = case.given, case.technique
        if technique is None or not isinstance(given, Attribution):
            return {}
        found = {}
        for backend in registry.backends(technique.name):
            if backend != given.backend:
                attributor = registry.get(technique, backend)(unwrap(case.model), technique, case.execution)
                found[backend] = _of_all(given, attributor.attribute(case.inputs, given.score))
        return found


class Float64Difference(Metric):
    """max|a − b| / max|b| between the map a and that of the model and photos in float64, b."""

    name: ClassVar[str] = "float64_difference"
    better: ClassVar[Better] = "lower"

    def measure(self, case: Case) -> Mapping[str, Tensor]:
        """(N, T)."""
        given = case.given
        if case.technique is None or not isinstance(given, Attribution):
            return {}
        try:
            model = copy.deepcopy(unwrap(case.model)).double()
        except Exception as error:
            raise ModelError(f"the model cannot be copied in float64: {error}") from error
        inputs = case.inputs.replaced({name: case.inputs.values[name].double() for name in case.inputs.explained})
        return {"": _of_all(case.again(model=model, inputs=inputs), given)}


def _of_all(first: Attribution, second: Attribution) -> Tensor:
    """The largest over the maps of both."""
    keys = first.raw or first.maps
    other = second.raw or second.maps
    return torch.stack([largest_change(map_, other[key]) for key, map_ in keys.items()]).amax(dim=0)
