"""Saliency, input × gradient and integrated gradients by Captum's classes of these names; SmoothGrad by its tunnel."""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any, ClassVar, TypeVar

import captum.attr
import torch
from torch import Tensor, nn

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.inputs.inputs import Inputs
from attribution.running.execution import CPU_ROWS
from attribution.technique import Maps
from attribution.techniques.gradient.family import AveragedGradient
from attribution.techniques.gradient.input_x_gradient import InputXGradient
from attribution.techniques.gradient.integrated_gradients import IntegratedGradients
from attribution.techniques.gradient.saliency import Saliency
from attribution.techniques.gradient.smooth_grad import SmoothGrad
from attribution_captum.layer import typed

T = TypeVar("T", bound=AveragedGradient)
Tensors = tuple[Tensor, ...]


class Score:
    """One target's score of each row: the forward function that Captum is given, with ``examples`` as the last one.

    The model runs with the default device that was set when this was made, whatever Captum runs with.
    """

    def __init__(self, run: Run[Any], column: int) -> None:
        self._run = run
        self._column = column
        self._device = torch.get_default_device()

    def __call__(self, *given: Tensor) -> Tensor:
        """(B,)."""
        *tensors, examples = given
        inputs = self._run.inputs[examples]
        shown = inputs.replaced(dict(zip(inputs.explained, tensors, strict=True)))
        with with_default(self._device):
            return self._run.scores(self._run.forward(shown), examples)[:, self._column]


def with_default(device: torch.device) -> AbstractContextManager[Any]:
    """``device`` by default; nothing is entered where it is so already."""
    return nullcontext() if torch.get_default_device() == device else device


class PerTarget(Attributor[T], ABC):
    """One call of Captum's class per target, for as many examples as go through the model at once."""

    backend: ClassVar[str] = "captum"

    def image_bytes(self, model: nn.Module, technique: T, inputs: Inputs) -> int:
        """The whole forward's graph, and the gradients of its widest part."""
        return layers.graph_bytes(model, inputs) + 2 * layers.peak_bytes(model, inputs)

    def compute(self, run: Run[T]) -> Maps:
        """(N, T, C, …) for each explained input."""
        parts = self.parts(run)
        with torch.no_grad():
            for examples in parts:
                run.scores(run.forward(run.inputs[examples], examples), examples)
        columns = []
        with typed():
            for t in range(run.settled[1].shape[1]):
                found = [self.ask(run, Score(run, t), run.inputs[each], each) for each in parts]
                columns.append([torch.cat(each).detach() for each in zip(*found, strict=True)])
        keys = [run.inputs.key(name) for name in run.inputs.explained]
        maps = {key: torch.stack(each, dim=1) for key, *each in zip(keys, *columns, strict=True)}
        self.tell(run, maps)
        return maps

    @abstractmethod
    def ask(self, run: Run[T], score: Score, inputs: Inputs, examples: Tensor) -> Tensors:
        """Captum's answer for one target and some examples, for each explained input."""

    def tell(self, run: Run[T], maps: Maps) -> None:
        """Hand on what else is known of the raw maps; nothing by default."""

    def rows(self, run: Run[T]) -> int:
        """How many rows go through the model at once."""
        most = CPU_ROWS if run.inputs.device.type == "cpu" else None
        needed = self.image_bytes(run.model, run.technique, run.inputs)
        return run.execution.chunk(needed, run.technique.samples * len(run.inputs), most=most)

    def parts(self, run: Run[T]) -> tuple[Tensor, ...]:
        """The examples that go through the model at once."""
        examples = torch.arange(len(run.inputs), device=run.inputs.device)
        parts: Tensors = examples.split(self.rows(run))
        return parts


def leaves(inputs: Inputs) -> Tensors:
    """What Captum is given of some examples, as the beginning of its graph."""
    return tuple(inputs.values[name].detach().requires_grad_() for name in inputs.explained)


class CaptumSaliency(PerTarget[Saliency]):
    """By ``Saliency``, which leaves the channels as they are."""

    technique_type: ClassVar[type[Saliency]] = Saliency

    def ask(self, run: Run[Saliency], score: Score, inputs: Inputs, examples: Tensor) -> Tensors:
        """One call, with its own absolute value."""
        method, absolute = captum.attr.Saliency(score), run.technique.absolute
        found: Tensors = method.attribute(leaves(inputs), abs=absolute, additional_forward_args=(examples,))
        return found


class CaptumInputXGradient(PerTarget[InputXGradient]):
    """By ``InputXGradient``."""

    technique_type: ClassVar[type[InputXGradient]] = InputXGradient

    def ask(self, run: Run[InputXGradient], score: Score, inputs: Inputs, examples: Tensor) -> Tensors:
        """One call."""
        method = captum.attr.InputXGradient(score)
        found: Tensors = method.attribute(leaves(inputs), additional_forward_args=(examples,))
        return found


class CaptumIntegratedGradients(PerTarget[IntegratedGradients]):
    """By ``IntegratedGradients``, which weighs in float32 whatever it is given.

    Its ``riemann_trapezoid`` has weights that add up to (steps − 1) / steps. The map is Captum's all the same.
    Captum makes its steps and weights on the default device and reads them there, which must therefore have values.
    """

    technique_type: ClassVar[type[IntegratedGradients]] = IntegratedGradients
    computes_in: ClassVar[torch.dtype | None] = torch.float32

    def ask(self, run: Run[IntegratedGradients], score: Score, inputs: Inputs, examples: Tensor) -> Tensors:
        """One call, of as many points at once as rows go through the model."""
        technique, points = run.technique, (leaves(inputs), _start(run, examples))
        rows, method = max(self.rows(run), len(examples)), captum.attr.IntegratedGradients(score)
        manner = {"n_steps": technique.steps, "method": technique.rule, "internal_batch_size": rows}
        with with_default(torch.device("cpu")):
            found: Tensors = method.attribute(*points, additional_forward_args=(examples,), **manner)
        return found

    def tell(self, run: Run[IntegratedGradients], maps: Maps) -> None:
        """The gap to completeness is Captum's convergence delta."""
        gaps = []
        for t in range(run.settled[1].shape[1]):
            delta = captum.attr.IntegratedGradients(Score(run, t)).compute_convergence_delta
            for each in self.parts(run):
                own = tuple(map_[each, t] for map_ in maps.values())
                gaps.append(delta(own, _start(run, each), leaves(run.inputs[each]), additional_forward_args=(each,)))
        total = torch.stack([map_.flatten(2).sum(dim=2) for map_ in maps.values()]).sum(dim=0)
        gap = torch.cat(gaps).view_as(total.T).T
        run.extras.update(run.technique.told(gap, total - gap))


class CaptumSmoothGrad(PerTarget[SmoothGrad]):
    """By ``NoiseTunnel`` of ``Saliency``, which repeats the examples, and has the statistics.

    The tunnel's own noise is that of torch's global generator, and takes other values in other batches. It is told to
    add none (``stdevs=0.0``); the function that Captum differentiates adds the technique's, a constant, instead.
    """

    technique_type: ClassVar[type[SmoothGrad]] = SmoothGrad

    def ask(self, run: Run[SmoothGrad], score: Score, inputs: Inputs, examples: Tensor) -> Tensors:
        """One call, of as many samples at once as go through the model beside each other."""
        draws, names = run.technique.draws(inputs), inputs.explained

        def noisy(*given: Tensor) -> Tensor:  # of each example all samples of a batch, then of the next
            some = list(islice(draws, len(given[-1]) // len(inputs)))
            noise = (torch.stack([z[name] for z in some], dim=1).flatten(0, 1) for name in names)
            return score(*[x.to(z.dtype) + z for x, z in zip(given, noise, strict=False)], given[-1])

        kind = {"mean": "smoothgrad", "squared": "smoothgrad_sq", "variance": "vargrad"}[run.technique.statistic]
        manner = {"nt_type": kind, "nt_samples": run.technique.samples, "stdevs": 0.0, "abs": False}
        manner["nt_samples_batch_size"] = max(1, self.rows(run) // len(inputs))
        tunnel = captum.attr.NoiseTunnel(captum.attr.Saliency(noisy))
        x = tuple(inputs.values[name].detach() for name in names)
        found: Tensors = tunnel.attribute(x, additional_forward_args=(examples,), **manner)
        return found


def _start(run: Run[IntegratedGradients], examples: Tensor) -> Tensors:
    start = run.technique.start_of(run.inputs)
    return tuple(b.expand_as(run.inputs.values[name])[examples] for name, b in start.items())
