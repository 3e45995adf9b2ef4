"""``Randomisation``: does a map change when the model forgets what it learned?"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from attribution import layers
from attribution.errors import AttributionError, ModelError
from attribution.isolation.context import isolated, unwrap
from attribution.metrics.draws import generator
from attribution.metrics.metric import Better, Case, Metric
from attribution.technique import Technique
from attribution.techniques.parameters import integer

_WEIGHTS = 5


@dataclass(frozen=True, kw_only=True)
class Randomisation(Metric):
    """Spearman's rank correlation between a map and that of the model with its last layers' weights shuffled.

    Top-down and cascading: at each of ``stages`` depths more layers, from the output, have the values of each weight
    permuted. The variants are the parts of the layers that are shuffled, such as ``"40%"``; ``"100%"`` is the whole
    model. Range −1 to 1. A map near 1 shows the photo and not the model. A map that is constant has 0. A random map has
    0 on average, edges have 1: the test tells what is independent of the weights, and nothing more.

    Args:
        stages: At how many depths.

    Raises:
        InputError: A field is out of range. ModelError: When run: the model cannot be copied.

    Source: J. Adebayo et al., *Sanity Checks for Saliency Maps*, NeurIPS 2018, section 4.1. Departs from the paper:
    weights are permuted and not drawn anew, which keeps the size of the activations; signed maps are ranked.
    """

    name: ClassVar[str] = "randomisation"
    better: ClassVar[Better] = "lower"

    stages: int = 3

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", integer("Randomisation", "stages", self.stages, least=1))

    def measure(self, case: Case) -> Mapping[str, Tensor]:
        """(N, T) by depth."""
        parts = [f"{k / self.stages:.0%}" for k in range(1, self.stages + 1)]
        if case.control is not None:
            again = case.control(case.inputs, case.seed + 1, case.first)
            return {part: spearman(case.map, again) for part in parts}
        if case.technique is None:
            return {}
        return dict(zip(parts, self._by_depth(case), strict=True))

    def _by_depth(self, case: Case) -> Iterator[Tensor]:
        technique = case.technique
        model = _copy(case.model)
        with isolated(model) as (found, _):
            stops = [stop for stop in layers.survey(found, case.inputs) if [*stop.module.parameters(recurse=False)]]
        order = list(dict.fromkeys(stop.name for stop in stops))[::-1]
        done = 0
        for k in range(1, self.stages + 1):
            until = round(k * len(order) / self.stages)
            for index, name in enumerate(order[done:until], done):
                _shuffle(model.get_submodule(name.partition("#")[0]), case.seed, index)
            done = until
            yield self._compared(case, model, technique)

    @staticmethod
    def _compared(case: Case, model: nn.Module, technique: Technique | None) -> Tensor:
        try:
            return spearman(case.map, case.again(model=model, technique=technique).map)
        except AttributionError as error:
            raise ModelError(f"the model with shuffled weights cannot be explained: {error}") from error


def spearman(first: Tensor, second: Tensor) -> Tensor:
    """(N, T): correlation of the ranks of two maps (N, T, …), ties by their mean rank; 0 of a constant map."""
    a, b = (_centred(each.detach().double().flatten(2)) for each in (first, second))
    product, size = (a * b).sum(dim=2), a.norm(dim=2) * b.norm(dim=2)
    return torch.where(size > 0, product / torch.where(size > 0, size, 1.0), 0.0)


def _centred(flat: Tensor) -> Tensor:
    """The ranks of each row, equal values by their mean, minus the mean rank."""
    rows = [
        (counts.cumsum(0) - (counts.double() + 1) / 2)[where]
        for row in flat.flatten(0, 1)
        for _, where, counts in [row.unique(return_inverse=True, return_counts=True)]
    ]
    ranks = torch.stack(rows).reshape(flat.shape)
    return ranks - ranks.mean(dim=2, keepdim=True)


def _copy(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(unwrap(model)).eval()
    except Exception as error:
        raise ModelError(f"the model cannot be copied, so that its weights cannot be shuffled: {error}") from error


def _shuffle(module: nn.Module, seed: int, index: int) -> None:
    """Permute the values of each of a layer's own weights."""
    source = generator(seed, index, _WEIGHTS)
    with torch.no_grad():
        for tensor in module.parameters(recurse=False):
            order = torch.randperm(tensor.numel(), generator=source, device="cpu").to(tensor.device)
            tensor.copy_(tensor.flatten()[order].view(tensor.shape))
