"""A technique by the name of another one is refused: files and ``compare`` know techniques by their names."""

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch

import attribution
from attribution import Attributor, Inputs, PluginError, Run, Technique, explain, register, registry
from attribution.technique import Kind, Maps
from attribution.testing import small_cnn


@dataclass(frozen=True, kw_only=True)
class Saliency(Technique):
    name: ClassVar[str] = "saliency"
    kind: ClassVar[Kind] = "heatmap"
    needs_target: ClassVar[bool] = True

    def finish(self, raw: Maps, inputs: Inputs) -> Maps:
        return raw


@dataclass(frozen=True, kw_only=True, eq=False)
class Coarser(attribution.Saliency):
    """A technique with more parameters is still of the known one's kind."""


class Plain(Attributor[Any]):
    technique_type: ClassVar[type[Technique]] = attribution.Saliency
    backend: ClassVar[str] = "plain"

    def compute(self, run: Run[Any]) -> Maps:
        x = run.inputs.tensor.requires_grad_()
        (gradient,) = torch.autograd.grad(run.scores(run.forward(x)).sum(), x)
        return {"input": gradient.abs()[:, None]}


class Foreign(Plain):
    technique_type: ClassVar[type[Technique]] = Saliency


class Own(Plain):
    technique_type: ClassVar[type[Technique]] = Coarser


def test_another_technique_of_a_known_name_is_refused() -> None:
    with pytest.raises(PluginError, match=r"Saliency from .* is called 'saliency', as attribution.* is; give yours"):
        register(Foreign)
    assert ("saliency", "plain") not in registry.available()


@pytest.mark.parametrize(("attributor", "technique"), [(Plain, attribution.Saliency()), (Own, Coarser())])
def test_a_backend_of_the_known_one_is_taken(attributor: type[Attributor[Any]], technique: Technique) -> None:
    register(attributor)
    try:
        result = explain(small_cnn(), torch.rand(1, 3, 17, 23), technique, backend="plain", target=3)
    finally:
        registry.unregister(attributor)
    assert result.map.shape == (1, 1, 17, 23)
