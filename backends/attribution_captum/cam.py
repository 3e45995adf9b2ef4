"""CAMs by Captum's gradients and activations of layers."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar, final

import torch
from captum.attr import LayerActivation, LayerGradCam, LayerGradientXActivation
from torch import Tensor, nn

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.errors import LayerError
from attribution.inputs.inputs import Inputs
from attribution.technique import Maps
from attribution.techniques import ElementWiseCAM, GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
from attribution.techniques.cam.family import CAM
from attribution.techniques.cam.tokens import Grid
from attribution_captum.layer import check, connected, explained, forward, modules, typed

C = TypeVar("C", bound=CAM)


class CaptumCAM(Attributor[C], ABC):
    """A technique of the `CAM` family, layer by layer and target by target, as Captum's classes take them.

    Captum knows channels-first outputs only. It is shown others as such, on a detour of the network that it can hook.
    """

    backend: ClassVar[str] = "captum"

    @abstractmethod
    def column(self, score: "ScoreOfOne", layer: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        """(N, *places): the map of one target, for a layer that gives (N, D, *places)."""

    def image_bytes(self, model: nn.Module, technique: C, inputs: Inputs) -> int:
        """The whole forward's graph, and the gradients of its widest part."""
        return layers.graph_bytes(model, inputs) + 2 * layers.peak_bytes(model, inputs)

    @final
    def compute(self, run: Run[C]) -> Maps:
        """(N, T, *places) for each layer. The score is settled in the forward that Captum makes anyway."""
        names = run.technique.layers
        asked = modules(run.model, names)
        shapes = [stop.shape or () for stop in check(run.model, names, run.inputs)]
        first = run.inputs[:1]
        grids = {
            name: run.technique.grid(name, shape, run.model, first) for name, shape in zip(names, shapes, strict=True)
        }
        # For readers of a layer's input, of which a frozen layer knows none.
        tensors = tuple(tensor.detach().requires_grad_() for tensor in explained(run))
        maps: Maps = {}
        for (name, grid), module in zip(grids.items(), asked, strict=True):
            columns: list[Tensor] = []
            with _shown(name, module, grid) as layer:
                while run.target is None or len(columns) < run.target.shape[1]:
                    score = ScoreOfOne(run, column=len(columns))
                    with typed(), connected(layers.no_influence(name)), _unwritten(name, module):
                        columns.append(self.column(score, layer, tensors).detach())
            maps[name] = torch.stack(columns, dim=1)
        for key, note in run.technique.notes(grids, run.inputs).items():
            run.note(key, note)
        return maps


class CaptumGradCAM(CaptumCAM[GradCAM]):
    """`GradCAM` by one ``LayerGradCam`` call per layer and target; Captum's own ReLU stays off."""

    technique_type: ClassVar[type[GradCAM]] = GradCAM

    def column(self, score: "ScoreOfOne", layer: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        """Captum's own sum over axis 1, which it keeps."""
        map_: Tensor = LayerGradCam(score, layer).attribute(inputs)
        return map_[:, 0]


class CaptumLayerCAM(CaptumCAM[LayerCAM]):
    """`LayerCAM` from ``LayerGradientXActivation``, which gives the gradient alone, and ``LayerActivation``."""

    technique_type: ClassVar[type[LayerCAM]] = LayerCAM

    def column(self, score: "ScoreOfOne", layer: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        """Where the gradient is positive, gradient · activation; the mean over channels, times their number."""
        gradient = LayerGradientXActivation(score, layer, multiply_by_inputs=False).attribute(inputs)
        activation = LayerActivation(score, layer).attribute(inputs)
        evidence = torch.where(gradient > 0, gradient * activation, 0.0)
        return evidence.mean(dim=1) * evidence.shape[1]


class CaptumHiResCAM(CaptumCAM[HiResCAM]):
    """`HiResCAM` from ``LayerGradientXActivation``, which multiplies."""

    technique_type: ClassVar[type[HiResCAM]] = HiResCAM

    def column(self, score: "ScoreOfOne", layer: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        """The mean over channels, times their number."""
        evidence: Tensor = LayerGradientXActivation(score, layer).attribute(inputs)
        return evidence.mean(dim=1) * evidence.shape[1]


class CaptumElementWiseCAM(CaptumCAM[ElementWiseCAM]):
    """`ElementWiseCAM` from ``LayerGradientXActivation``, which multiplies."""

    technique_type: ClassVar[type[ElementWiseCAM]] = ElementWiseCAM

    def column(self, score: "ScoreOfOne", layer: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        """The mean over channels of what is positive, times their number."""
        evidence: Tensor = LayerGradientXActivation(score, layer).attribute(inputs)
        return torch.where(evidence > 0, evidence, 0.0).mean(dim=1) * evidence.shape[1]


class CaptumXGradCAM(CaptumCAM[XGradCAM]):
    """`XGradCAM` from ``LayerGradientXActivation``, which multiplies, and ``LayerActivation``."""

    technique_type: ClassVar[type[XGradCAM]] = XGradCAM

    def column(self, score: "ScoreOfOne", layer: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        """By channel what Captum's products add up to, shared out as the activation is."""
        evidence = LayerGradientXActivation(score, layer).attribute(inputs)
        activation = LayerActivation(score, layer).attribute(inputs)
        totals = torch.einsum("nk...->nk", activation) + 1e-7
        return torch.einsum("nk,nk...->n...", torch.einsum("nk...->nk", evidence) / totals, activation)


class CaptumGradCAMPlusPlus(CaptumCAM[GradCAMPlusPlus]):
    """`GradCAMPlusPlus` from ``LayerGradientXActivation``, which gives the gradient alone, and ``LayerActivation``."""

    technique_type: ClassVar[type[GradCAMPlusPlus]] = GradCAMPlusPlus

    def column(self, score: "ScoreOfOne", layer: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        """The paper's fraction of squares and cubes; of h = g / max|g|, since those of g vanish in float32."""
        gradient = LayerGradientXActivation(score, layer, multiply_by_inputs=False).attribute(inputs)
        activation = LayerActivation(score, layer).attribute(inputs)
        size = gradient.abs().flatten(1).amax(dim=1)
        h = torch.einsum("nk...,n->nk...", gradient, torch.where(size > 0, 1 / size, 0.0))
        below = 2 * h**2 + torch.einsum("nk,n,nk...->nk...", torch.einsum("nk...->nk", activation), size, h**3)
        alpha = torch.where(below == 0, 0.0, h**2 / below)
        weights = torch.einsum("nk...->nk", alpha * gradient.clamp(min=0))
        return torch.einsum("nk,nk...->n...", weights, activation)


@contextmanager
def _shown(name: str, module: nn.Module, grid: Grid) -> Iterator[nn.Module]:
    """A layer whose output is that of ``module`` as (N, D, *places), inside the network; no hook outlives the block.

    Raises:
        LayerError: In the forward: a module that returns its input, of which others may be readers past the detour.
    """
    if grid.plain:
        yield module
        return
    probe, owner, armed, handle = nn.Identity(), threading.get_ident(), True, None

    def detour(module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        if not armed or threading.get_ident() != owner:
            return None
        if any(output is given for given in args):
            raise LayerError(
                f"layer {name!r} returns its input, and Captum would not count who else reads it as tokens; "
                "use backend='hooks', or the layer before it"
            )
        return grid.unmap(probe(grid.map(output.clone())), output)

    try:
        handle = module.register_forward_hook(detour)
        yield probe
    finally:
        armed = False  # an interrupt may have hidden the handle
        if handle is not None:
            handle.remove()


@contextmanager
def _unwritten(name: str, module: nn.Module) -> Iterator[None]:
    """Notice who writes into the tensor that Captum keeps, as who holds the input of a layer that returns it can.

    Raises:
        LayerError: Somebody did, so that neither the value nor the gradient is the layer's.
    """
    kept: list[tuple[Tensor, int]] = []

    def keep(module: nn.Module, args: Any, output: Tensor) -> None:
        if torch.is_grad_enabled():  # else Captum asks for the values, of which it makes a copy at once
            kept.append((output, output._version))

    handle = module.register_forward_hook(keep)
    try:
        yield
        if any(output._version != version for output, version in kept):
            raise LayerError(
                f"layer {name!r} returns a tensor that is written into later, which Captum cannot keep apart; "
                "use backend='hooks'"
            )
    finally:
        handle.remove()


class ScoreOfOne:
    """One target's score for each image: the forward function that Captum is given."""

    def __init__(self, run: Run[Any], column: int) -> None:
        self.run = run
        self.column = column

    def __call__(self, *tensors: Tensor) -> Tensor:
        """(N,)."""
        return self.run.scores(forward(self.run, *tensors))[:, self.column]
