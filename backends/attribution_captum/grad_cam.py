"""Grad-CAM by Captum's ``LayerGradCam``."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.errors import LayerError
from attribution.inputs.inputs import Inputs
from attribution.technique import Maps
from attribution.techniques import GradCAM
from attribution.techniques.cam.tokens import Grid
from attribution_captum.layer import check, connected, explained, forward, modules, typed


class CaptumGradCAM(Attributor[GradCAM]):
    """`GradCAM` by one ``LayerGradCam`` call per layer and target, detached; Captum's own ReLU stays off.

    Captum knows channels-first outputs only. It is shown others as such, on a detour of the network that it can hook.
    """

    technique_type: ClassVar[type[GradCAM]] = GradCAM
    backend: ClassVar[str] = "captum"

    def image_bytes(self, model: nn.Module, technique: GradCAM, inputs: Inputs) -> int:
        """The whole forward's graph, and the gradients of its widest part."""
        return layers.graph_bytes(model, inputs) + 2 * layers.peak_bytes(model, inputs)

    def compute(self, run: Run[GradCAM]) -> Maps:
        """(N, T, h, w) for each layer. The score is settled in the forward that Captum makes anyway."""
        names = run.technique.layers
        asked = modules(run.model, names)
        shapes = [stop.shape or () for stop in check(run.model, names, run.inputs)]
        for name, shape in zip(names, shapes, strict=True):
            layers.per_image(name, shape, 1)
        first = run.inputs[:1]
        grids = [run.technique.grid(name, shape, run.model, first) for name, shape in zip(names, shapes, strict=True)]
        # For readers of a layer's input, of which a frozen layer knows none.
        tensors = tuple(tensor.detach().requires_grad_() for tensor in explained(run))
        maps: Maps = {}
        for name, module, grid in zip(names, asked, grids, strict=True):
            columns: list[Tensor] = []
            with _shown(name, module, grid) as layer:
                while run.target is None or len(columns) < run.target.shape[1]:
                    cam = LayerGradCam(_Score(run, column=len(columns)), layer)
                    with typed(), connected(layers.no_influence(name)), _unwritten(name, module):
                        columns.append(cam.attribute(tensors).detach())
            maps[name] = torch.cat(columns, dim=1)
            if run.technique.tokens is None and grid.form != "channels_first":
                run.note(f"tokens {name}", f"{grid}, inferred")
        return maps


@contextmanager
def _shown(name: str, module: nn.Module, grid: Grid) -> Iterator[nn.Module]:
    """A layer whose output is that of ``module`` as (N, D, h, w), inside the network; no hook outlives the block.

    Raises:
        LayerError: In the forward: a module that returns its input, of which others may be readers past the detour.
    """
    if grid.form == "channels_first":
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
    handle = module.register_forward_hook(lambda module, args, output: kept.append((output, output._version)))
    try:
        yield
        if any(output._version != version for output, version in kept):
            raise LayerError(
                f"layer {name!r} returns a tensor that is written into later, which Captum cannot keep apart; "
                "use backend='hooks'"
            )
    finally:
        handle.remove()


class _Score:
    """One target's score for each image: the forward function that Captum is given."""

    def __init__(self, run: Run[GradCAM], column: int) -> None:
        self.run = run
        self.column = column

    def __call__(self, *tensors: Tensor) -> Tensor:
        return self.run.scores(forward(self.run, *tensors))[:, self.column]
