"""CAMs by Captum's gradients and activations of layers."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, ClassVar, TypeVar, final

import torch
from captum.attr import LayerActivation, LayerGradCam, LayerGradientXActivation
from torch import Tensor, nn

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.errors import LayerError
from attribution.inputs.inputs import Inputs
from attribution.layers import LayerName
from attribution.running import nested
from attribution.technique import Maps
from attribution.techniques import ElementWiseCAM, GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
from attribution.techniques.cam.family import CAM
from attribution.techniques.cam.tokens import Grid
from attribution_captum.layer import connected, explained, forward, item, places, typed

C = TypeVar("C", bound=CAM)


class CaptumCAM(Attributor[C], ABC):
    """A technique of the `CAM` family, layer by layer and target by target, as Captum's classes take them.

    Captum knows channels-first outputs only. It is shown others as such, on a detour of the network that it can hook.
    """

    backend: ClassVar[str] = "captum"

    @abstractmethod
    def column(self, score: "ScoreOfOne", layer: nn.Module, inputs: tuple[Tensor, ...], name: LayerName) -> Tensor:
        """(N, *places): the map of one target, for a layer that gives, or is given, (N, D, *places) under a name."""

    def image_bytes(self, model: nn.Module, technique: C, inputs: Inputs) -> int:
        """The whole forward's graph, and the gradients of its widest part."""
        return layers.graph_bytes(model, inputs) + 2 * layers.peak_bytes(model, inputs)

    def shown(
        self, name: LayerName, module: nn.Module, grid: Grid
    ) -> AbstractContextManager[tuple[nn.Module, LayerName]]:
        """A layer that gives, or is given, (N, D, *places) inside the network, and its name."""
        return detoured(name, module, grid)

    @final
    def compute(self, run: Run[C]) -> Maps:
        """(N, T, *places) for each layer. The score is settled in the forward that Captum makes anyway."""
        names = run.technique.layers
        asked = places(run.model, names, run.inputs)
        shapes = [layers.alone(run.model, run.inputs, text) or () for text in names]
        first = run.inputs[:1]
        grids = {
            name: run.technique.grid(name, shape, run.model, first) for name, shape in zip(names, shapes, strict=True)
        }
        # For readers of a layer's input, of which a frozen layer knows none.
        tensors = tuple(tensor.detach().requires_grad_() for tensor in explained(run))
        maps: Maps = {}
        for (text, grid), (name, module) in zip(grids.items(), asked, strict=True):
            columns: list[Tensor] = []
            with self.shown(name, module, grid) as (layer, shown):
                while run.target is None or len(columns) < run.target.shape[1]:
                    score = ScoreOfOne(run, column=len(columns))
                    with typed(), connected(without_influence(name)), unwritten(name, module):
                        columns.append(self.column(score, layer, tensors, shown).detach())
            maps[text] = torch.stack(columns, dim=1)
        for key, note in run.technique.notes(grids, run.inputs).items():
            run.note(key, note)
        return maps


def held(method: Any, inputs: tuple[Tensor, ...], name: LayerName, **options: bool) -> Tensor:
    """What a method of Captum gives for a layer's output, or for what it is given, by the name of the layer."""
    return item(name, method.attribute(inputs, attribute_to_layer_input=name.entry, **options))


class CaptumGradCAM(CaptumCAM[GradCAM]):
    """`GradCAM` by one ``LayerGradCam`` call per layer and target; Captum's own ReLU stays off."""

    technique_type: ClassVar[type[GradCAM]] = GradCAM

    def column(self, score: "ScoreOfOne", layer: nn.Module, inputs: tuple[Tensor, ...], name: LayerName) -> Tensor:
        """Captum's own sum over axis 1, which it keeps, or its terms."""
        apart = score.run.technique.by_channel
        found = held(LayerGradCam(score, layer), inputs, name, attr_dim_summation=not apart)
        return found if apart else found[:, 0]


class CaptumLayerCAM(CaptumCAM[LayerCAM]):
    """`LayerCAM` from ``LayerGradientXActivation``, which gives the gradient alone, and ``LayerActivation``."""

    technique_type: ClassVar[type[LayerCAM]] = LayerCAM

    def column(self, score: "ScoreOfOne", layer: nn.Module, inputs: tuple[Tensor, ...], name: LayerName) -> Tensor:
        """Where the gradient is positive, gradient · activation; the mean over channels, times their number."""
        gradient = held(LayerGradientXActivation(score, layer, multiply_by_inputs=False), inputs, name)
        activation = held(LayerActivation(score, layer), inputs, name)
        evidence = torch.where(gradient > 0, gradient * activation, 0.0)
        return evidence.mean(dim=1) * evidence.shape[1]


class CaptumHiResCAM(CaptumCAM[HiResCAM]):
    """`HiResCAM` from ``LayerGradientXActivation``, which multiplies."""

    technique_type: ClassVar[type[HiResCAM]] = HiResCAM

    def column(self, score: "ScoreOfOne", layer: nn.Module, inputs: tuple[Tensor, ...], name: LayerName) -> Tensor:
        """The mean over channels, times their number, or Captum's product itself."""
        evidence = held(LayerGradientXActivation(score, layer), inputs, name)
        return evidence if score.run.technique.by_channel else evidence.mean(dim=1) * evidence.shape[1]


class CaptumElementWiseCAM(CaptumCAM[ElementWiseCAM]):
    """`ElementWiseCAM` from ``LayerGradientXActivation``, which multiplies."""

    technique_type: ClassVar[type[ElementWiseCAM]] = ElementWiseCAM

    def column(self, score: "ScoreOfOne", layer: nn.Module, inputs: tuple[Tensor, ...], name: LayerName) -> Tensor:
        """The mean over channels of what is positive, times their number."""
        evidence = held(LayerGradientXActivation(score, layer), inputs, name)
        return torch.where(evidence > 0, evidence, 0.0).mean(dim=1) * evidence.shape[1]


class CaptumXGradCAM(CaptumCAM[XGradCAM]):
    """`XGradCAM` from ``LayerGradientXActivation``, which multiplies, and ``LayerActivation``."""

    technique_type: ClassVar[type[XGradCAM]] = XGradCAM

    def column(self, score: "ScoreOfOne", layer: nn.Module, inputs: tuple[Tensor, ...], name: LayerName) -> Tensor:
        """By channel what Captum's products add up to, shared out as the activation is."""
        evidence = held(LayerGradientXActivation(score, layer), inputs, name)
        activation = held(LayerActivation(score, layer), inputs, name)
        totals = torch.einsum("nk...->nk", activation) + 1e-7
        return torch.einsum("nk,nk...->n...", torch.einsum("nk...->nk", evidence) / totals, activation)


class CaptumGradCAMPlusPlus(CaptumCAM[GradCAMPlusPlus]):
    """`GradCAMPlusPlus` from ``LayerGradientXActivation``, which gives the gradient alone, and ``LayerActivation``."""

    technique_type: ClassVar[type[GradCAMPlusPlus]] = GradCAMPlusPlus

    def column(self, score: "ScoreOfOne", layer: nn.Module, inputs: tuple[Tensor, ...], name: LayerName) -> Tensor:
        """The paper's fraction of squares and cubes; of h = g / max|g|, since those of g vanish in float32."""
        gradient = held(LayerGradientXActivation(score, layer, multiply_by_inputs=False), inputs, name)
        activation = held(LayerActivation(score, layer), inputs, name)
        size = gradient.abs().flatten(1).amax(dim=1)
        h = torch.einsum("nk...,n->nk...", gradient, torch.where(size > 0, 1 / size, 0.0))
        below = 2 * h**2 + torch.einsum("nk,n,nk...->nk...", torch.einsum("nk...->nk", activation), size, h**3)
        alpha = torch.where(below == 0, 0.0, h**2 / below)
        weights = torch.einsum("nk...->nk", alpha * gradient.clamp(min=0))
        return torch.einsum("nk,nk...->n...", weights, activation)


@contextmanager
def detoured(name: LayerName, module: nn.Module, grid: Grid) -> Iterator[tuple[nn.Module, LayerName]]:
    """A layer that gives, or is given, (N, D, *places) inside the network, and its name; no hook outlives the block.

    Raises:
        LayerError: Tokens that a layer is given. In the forward: a module that returns its input. Of either there may
            be readers past the detour.
    """
    if grid.plain:
        yield module, name
        return
    past = LayerError(
        f"layer {name.text!r} {'is given tokens' if name.entry else 'returns its input'}, and Captum would not count "
        "who else reads it as tokens; use backend='hooks', or the layer before it"
    )
    if name.entry:
        raise past
    probe, owner, armed, handle = nn.Identity(), threading.get_ident(), True, None

    def detour(module: nn.Module, args: Any, output: Any) -> Any:
        if not armed or threading.get_ident() != owner:
            return None
        tensor = layers.item(output, name.keys)
        beside = [each for each in output if each is tensor] if name.keys else [tensor]
        if len(beside) > 1 or any(tensor is given for given in args):
            raise past
        return layers.replaced(output, name.keys, grid.unmap(probe(grid.map(tensor.clone())), tensor))

    try:
        handle = module.register_forward_hook(detour)
        yield probe, replace(name, keys=())
    finally:
        armed = False  # an interrupt may have hidden the handle
        if handle is not None:
            handle.remove()


def without_influence(name: LayerName) -> LayerError:
    """Captum takes the gradients of all items of a tuple at once, and fails where one of them has none."""
    if not name.keys:
        return layers.no_influence(name.text)
    return LayerError(
        f"layer {name.text!r}, or what lies beside it, has no influence on the score, and Captum takes the gradients "
        "of all items at once; use backend='hooks'"
    )


@contextmanager
def unwritten(name: LayerName, module: nn.Module, *, runs: int | None = None) -> Iterator[None]:
    """Notice who writes into a tensor that Captum keeps, or into the copy that it hands on of a layer's input.

    Args:
        name: The layer.
        module: It.
        runs: In how many of its first runs with gradients; ``None``: in all.

    Raises:
        LayerError: Somebody did, so that neither the value nor the gradient is the layer's.
    """
    kept: list[tuple[Tensor, int]] = []
    written, done = False, 0

    def looking() -> bool:  # without gradients Captum asks for the values, of which it makes a copy at once
        return torch.is_grad_enabled() and (runs is None or done < runs)

    def keep(values: Any) -> None:
        if looking():
            kept.extend((tensor, tensor._version) for tensor in nested.tensors(values))

    def look(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal written, done
        if name.entry:
            written |= looking() and any(tensor._version for tensor in nested.tensors(args))
        else:
            keep(output)
        done += torch.is_grad_enabled()

    handles = [module.register_forward_hook(look)]
    if name.entry:
        handles.append(module.register_forward_pre_hook(lambda module, args: keep(args)))
    try:
        yield
        if written:
            raise LayerError(
                f"layer {name.text!r} is written into by the layer, and Captum hands it a copy, which others that read "
                "it would miss; use backend='hooks'"
            )
        if any(tensor._version != version for tensor, version in kept):
            raise LayerError(
                f"layer {name.text!r} returns a tensor that is written into later, which Captum cannot keep apart; "
                "use backend='hooks'"
            )
    finally:
        for handle in handles:
            handle.remove()


class ScoreOfOne:
    """One target's score for each image: the forward function that Captum is given."""

    def __init__(self, run: Run[Any], column: int) -> None:
        self.run = run
        self.column = column

    def __call__(self, *tensors: Tensor) -> Tensor:
        """(N,); of rows (B,), where Captum repeats the examples, whose places then come as the last tensor."""
        inputs = self.run.inputs
        if len(tensors) == len(inputs.explained):
            return self.run.scores(forward(self.run, *tensors))[:, self.column]
        *shown, examples = tensors
        inputs = inputs[examples].replaced(dict(zip(inputs.explained, shown, strict=True)))
        return self.run.scores(self.run.forward(inputs, examples), examples)[:, self.column]
