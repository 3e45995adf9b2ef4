"""Segments of the input by Captum's ``FeatureAblation``."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, TypeVar

import torch
from captum.attr import FeatureAblation as CaptumFeatureAblationMethod
from torch import Tensor

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.running.execution import CPU_WINDOWS
from attribution.technique import Maps
from attribution.techniques import FeatureAblation
from attribution.techniques.perturbation.segmented import Segmented
from attribution_captum.gradients import with_default
from attribution_captum.layer import typed

S = TypeVar("S", bound=Segmented)


class CaptumSegments(Attributor[S], ABC):
    """One call of Captum's class per covered input and target, with the segments as its features."""

    backend: ClassVar[str] = "captum"

    def compute(self, run: Run[S]) -> Maps:
        """(N, T, *places) of each covered input."""
        technique, maps = run.technique, {}
        with torch.no_grad(), typed():
            for name in technique.covered(run.inputs):
                x, columns = run.inputs.values[name], list[Tensor]()
                mask = technique.labels(x, name)
                mask = mask if x.ndim == 2 else mask[:, None].repeat(1, x.shape[1], *[1] * (mask.ndim - 1))
                cover = technique.cover(x, name).expand_as(x)
                groups = _alike(mask.expand(len(x), *mask.shape[1:]))
                while run.target is None or len(columns) < run.target.shape[1]:
                    score = OneInput(run, name, len(columns))
                    score.settle()
                    column = torch.empty_like(x)
                    for each in groups:
                        own = mask if len(mask) == 1 else mask[each]
                        column[each] = self.ask(run, score, x[each], cover[each], own, each).to(column)
                    columns.append(column if x.ndim == 2 else column[:, 0])
                maps[run.inputs.key(name)] = torch.stack(columns, dim=1)
        return maps

    @abstractmethod
    def ask(self, run: Run[S], score: "OneInput", x: Tensor, cover: Tensor, mask: Tensor, examples: Tensor) -> Tensor:
        """Captum's answer for one target and some examples, of the shape of the input.

        Args:
            run: Of the call.
            score: The function that Captum is given, with the examples' places as a further argument.
            x: The covered input of the examples.
            cover: What covers it, of its shape.
            mask: The features, (1 or n, …) with the channels of the input.
            examples: (n,), their places, all of as many segments.
        """


class CaptumFeatureAblation(CaptumSegments[FeatureAblation]):
    """`FeatureAblation` by the class of that name."""

    technique_type: ClassVar[type[FeatureAblation]] = FeatureAblation

    def ask(self, run: Run[Any], score: "OneInput", x: Tensor, cover: Tensor, mask: Tensor, examples: Tensor) -> Tensor:
        """As many segments of all examples per forward as fit."""
        found: Tensor = CaptumFeatureAblationMethod(score).attribute(
            x,
            baselines=cover,
            feature_mask=mask,
            additional_forward_args=(examples,),
            perturbations_per_eval=at_once(run, int(mask.max()) + 1),
        )
        return found


class OneInput:
    """One target's score of each row in which an input is covered."""

    def __init__(self, run: Run[Any], name: str, column: int) -> None:
        self.run, self._name, self._column = run, name, column
        self._device = torch.get_default_device()

    def settle(self) -> None:
        """Show the inputs as they are, where nobody did."""
        if self.run.score is None:
            self.run.scores(self.run.forward(self.run.inputs))

    def __call__(self, covered: Tensor, examples: Tensor) -> Tensor:
        """(B,)."""
        shown = self.run.inputs[examples].replaced({self._name: covered})
        with with_default(self._device):
            return self.run.scores(self.run.forward(shown, examples), examples)[:, self._column]


def _alike(mask: Tensor) -> list[Tensor]:
    """The places of examples of as many segments; Captum takes each number up to the largest for a feature."""
    last = mask.flatten(1).amax(1)
    return [(last == each).nonzero()[:, 0] for each in last.unique()]


def at_once(run: Run[Any], features: int) -> int:
    """Features of all examples per forward."""
    count = len(run.inputs)
    shown = sum(6 * tensor.nbytes for name, tensor in run.inputs.values.items() if run.inputs.axes.get(name))
    most = max(1, CPU_WINDOWS // count) if run.inputs.device.type == "cpu" else None
    return run.execution.chunk(shown + count * layers.peak_bytes(run.model, run.inputs), features, most=most)
