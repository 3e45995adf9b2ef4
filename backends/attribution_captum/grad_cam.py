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
from attribution.technique import Maps
from attribution.techniques import GradCAM
from attribution.techniques.tokens import Grid
from attribution_captum.layer import check, connected, modules, typed


class CaptumGradCAM(Attributor[GradCAM]):
    """`GradCAM` by one ``LayerGradCam`` call per layer and target, detached; Captum's own ReLU stays off.

    Captum knows channels-first outputs only. It is shown others as such, on a detour of the network that it can hook.
    """

    technique_type: ClassVar[type[GradCAM]] = GradCAM
    backend: ClassVar[str] = "captum"

    def compute(self, run: Run) -> Maps:
        """(N, T, h, w) for each layer. Classes are selected in the forward that Captum makes anyway."""
        names = self.technique.layers
        asked = modules(run.model, names)
        shapes = [stop.shape or () for stop in check(run.model, names, run.inputs)]
        for name, shape in zip(names, shapes, strict=True):
            layers.per_image(name, shape, 1)
        first = run.inputs[:1]
        grids = [self.technique.grid(name, shape, run.model, first) for name, shape in zip(names, shapes, strict=True)]
        maps: Maps = {}
        for name, module, grid in zip(names, asked, grids, strict=True):
            columns: list[Tensor] = []
            with _shown(module, grid) as layer:
                while run.target is None or len(columns) < run.target.shape[1]:
                    cam = LayerGradCam(_Score(run, column=len(columns)), layer)
                    with typed(), connected(layers.no_influence(name)):
                        columns.append(cam.attribute(run.inputs).detach())
            maps[name] = torch.cat(columns, dim=1)
            if self.technique.tokens is None and grid.form != "channels_first":
                run.note(f"tokens {name}", f"{grid}, inferred")
        return maps


@contextmanager
def _shown(module: nn.Module, grid: Grid) -> Iterator[nn.Module]:
    """A layer whose output is that of ``module`` as (N, D, h, w), inside the network; no hook outlives the block."""
    if grid.form == "channels_first":
        yield module
        return
    probe, owner, armed, handle = nn.Identity(), threading.get_ident(), True, None

    def detour(module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        if not armed or threading.get_ident() != owner:
            return None
        return grid.unmap(probe(grid.map(output.clone())), output)

    try:
        handle = module.register_forward_hook(detour)
        yield probe
    finally:
        armed = False  # an interrupt may have hidden the handle
        if handle is not None:
            handle.remove()


class _Score:
    """One target's logit for each image: the forward function that Captum is given."""

    def __init__(self, run: Run, column: int) -> None:
        self.run = run
        self.column = column

    def __call__(self, x: Tensor) -> Tensor:
        logits = self.run.forward(x)
        target = self.run.select(logits) if self.run.target is None else self.run.target
        return logits.gather(1, target)[:, self.column]
