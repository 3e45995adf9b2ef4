"""The network alone: what no library can do without, as a contestant that our overhead is measured against."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attribution import Activations, Attribution, FilterVisualization, GradCAM
from attribution.agreement import agree
from attribution.metrics.cost import Macs
from benchmarks.cases import Case
from benchmarks.peers.peer import Check, Contestant, Peer, Tier, own, tolerance
from benchmarks.rows import subject_of


class _Reached(Exception):
    """Ends a forward at the layer that was asked for."""


@dataclass(frozen=True, kw_only=True)
class Floor(Peer):
    """A forward without graph, or as many as the work is worth; ends at the last layer where nothing behind it counts.

    Activations: one forward up to the layer. Grad-CAM: one forward and, for each target where there are several layers,
    the share of multiply-accumulates behind the first of them once more. Filter visualisation: per step two forwards
    up to the layer, one of which stands for the gradient, and one more for the last objective.
    """

    name: str = "bare network"
    package: str = "torch"
    tier: Tier = "floor"

    def enter(self, case: Case, device: str, *, sweep: bool) -> Contestant:
        """The logits, or the layer's output."""
        technique = case.technique
        shared, inputs = subject_of(case, device)
        model = own(shared)
        if isinstance(technique, GradCAM):
            assert inputs is not None
            share = _behind(model, technique.layers, inputs) if len(technique.layers) > 1 else 0.0
            return Contestant(_forward(model, inputs), model, scale=1.0 + case.question.targets * share)
        if isinstance(technique, Activations):
            assert inputs is not None
            return Contestant(truncated(model, technique.layers[-1], inputs), model)
        assert isinstance(technique, FilterVisualization)
        start = technique.start(model)
        return Contestant(truncated(model, technique.layer, start), model, scale=2.0 * technique.steps + 1)

    def check(self, case: Case, device: str, answer: Tensor, ours: Attribution) -> Check:
        """It is the same network on the same inputs."""
        technique = case.technique
        if isinstance(technique, GradCAM):
            assert ours.scores is not None
            assert ours.target is not None
            pairs, what = (ours.scores, answer.gather(1, ours.target)), "the clean logits"
        elif isinstance(technique, Activations):
            pairs, what = (ours.raw[technique.layers[-1]], answer), "the layer's output"
        else:
            assert isinstance(technique, FilterVisualization)
            channels = torch.tensor(technique.channels, device=answer.device)
            pairs, what = (ours.extras["objective"][0], technique.objective(answer, channels)), "the first objective"
        return Check([agree(what, *pairs, relative=tolerance(ours))], f"{what}, within the dtype's tolerance")


def _forward(model: nn.Module, inputs: Tensor) -> Callable[[], Tensor]:
    def call() -> Tensor:
        with torch.no_grad():
            logits: Tensor = model(inputs)
            return logits

    return call


def truncated(model: nn.Module, layer: str, inputs: Tensor) -> Callable[[], Tensor]:
    """A forward without graph up to a layer, whose output it gives; its hook stays on the model."""
    found: list[Tensor] = []

    def stop(module: nn.Module, args: object, output: Tensor) -> None:
        found[:] = [output]
        raise _Reached

    model.get_submodule(layer).register_forward_hook(stop)

    def call() -> Tensor:
        with torch.no_grad(), suppress(_Reached):
            model(inputs)
        return found.pop()

    return call


def _behind(model: nn.Module, layers: tuple[str, ...], inputs: Tensor) -> float:
    """The largest share of a forward's multiply-accumulates that comes after one of the layers."""
    with torch.no_grad(), Macs() as whole:
        model(inputs)
    shares: list[float] = []
    for layer in layers:
        with Macs() as before:
            truncated(own(model), layer, inputs)()
        shares.append(1 - before.total / whole.total)
    return max(shares)
