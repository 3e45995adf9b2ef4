"""``CamAttributor``: one forward for all layers and targets, gradients of many targets together."""

from abc import ABC
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, TypeVar, final

from torch import Tensor, nn

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.errors import PluginError
from attribution.inputs.inputs import Inputs
from attribution.technique import Maps
from attribution.techniques.cam.family import CAM
from attribution_hooks.cam import backward, memory
from attribution_hooks.cam.graphs import replayed
from attribution_hooks.cam.one_pass import layers_of, maps_of
from attribution_hooks.cam.one_pass import weighted as weighted

C = TypeVar("C", bound=CAM)


class CamAttributor(Attributor[C], ABC):
    """A technique of the `CAM` family with the graph from the first layer on; no parameter gradient is formed.

    A subclass implements `weights`, where the mean gradient of a channel is all that it needs of the gradient, else
    `combine`. A few targets take one backward each. More are taken through the tail together, as many as fit the memory
    budget. Where the tail is found to be a mean and a linear layer, its weights are the mean gradients of all classes.
    """

    backend: ClassVar[str] = "hooks"
    by_mean: ClassVar[bool]
    """Whether the mean gradient is all that it needs: it has `weights`."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.by_mean = cls.weights is not CamAttributor.weights

    def weights(self, activation: Tensor, mean_gradient: Tensor) -> Tensor:
        """(N, T, D), by which the channels are multiplied before they are added up.

        Args:
            activation: (N, D, *places), detached.
            mean_gradient: (N, T, D), of each target's score, over the places; may be a view that repeats itself.
        """
        raise NotImplementedError

    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """(N, T, *places), the maps of some of the targets.

        Args:
            activation: (N, 1, D, *places), detached. It must not be written into, and neither must the gradient, which
                other techniques may read.
            gradient: (N, T, D, *places), of each target's score.
        """
        raise NotImplementedError

    def terms(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """(N, T, D, *places), which `combine` adds up over D; of techniques whose channels can be kept."""
        raise NotImplementedError

    def image_bytes(self, model: nn.Module, technique: C, inputs: Inputs) -> int:
        """The forward's graph from the first layer on, or what is widest before it, and one target's gradients."""
        names = technique.layers
        gradients = memory.gradient_bytes(model, inputs, names, kept=1 if self.by_mean else backward.COPIES)
        graph = memory.forward_bytes(model, inputs, names) + gradients
        return max(graph, 2 * layers.peak_bytes(model, inputs)) if graph else 0  # four maps meet where branches do

    @classmethod
    def bytes_of_many(cls, asked: Sequence[tuple[Any, Any]], model: nn.Module, inputs: Inputs) -> int:
        """The same from the first of all their layers on."""
        names = layers_of(technique for _, technique in asked)
        needed: list[int] = [
            each.image_bytes(model, replace(technique, layers=names), inputs) for each, technique in asked
        ]
        return max(needed)

    @final
    def compute(self, run: Run[C]) -> Maps:
        """(N, T, *places) for each layer.

        Raises:
            PluginError: The subclass implements neither `weights` nor `combine`, or both.
        """
        self._check()
        if run.execution.graphs:
            return replayed(run, run.technique, lambda run: maps_of([(self, run)])[0])
        return maps_of([(self, run)])[0]

    @property
    def shared(self) -> Hashable:
        """How tokens are read."""
        return self.technique.tokens

    @final
    @classmethod
    def compute_many(cls, asked: Sequence[tuple[Any, Run[Any]]]) -> list[Maps]:
        """One forward, with the layers of all techniques, and one backward for each chunk of targets."""
        for attributor, run in asked:
            attributor._check()
            if run.execution.graphs:
                run.note("graph", "none: several techniques in one pass")
        return maps_of(asked)

    def _check(self) -> None:
        if self.by_mean is (type(self).combine is not CamAttributor.combine):
            raise PluginError(f"{type(self).__name__} implements weights or combine, one of the two")
