"""Captum called directly: as its documentation shows it, at its best setting, and on a compiled model."""

import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module

import torch
from torch import Tensor, nn

from attribution import Activations, Attribution, GradCAM, Occlusion
from attribution.agreement import agree
from benchmarks.cases import Case
from benchmarks.peers.peer import Check, Contestant, Peer, answered, classes, own, tolerance
from benchmarks.rows import subject_of, sweep_of, windows

SMOKE_CHUNK = 16
"""Windows per forward of the tuned tier where no sweep is made."""

OTHER_KERNELS = 4
"""Channels-last and compiled convolutions sum in another order, so twice the rounding of one side is too little.

ResNet-50, occlusion, as a part of the map's maximum: ours is 2.4e-5 off float64, the tuned tier 4.7e-5, where one
tolerance allows 2.9e-5.
"""


@dataclass(frozen=True, kw_only=True)
class Captum(Peer):
    """One of Captum's classes, on a model and inputs as the tier lays them out."""

    name: str = "captum.attr"
    package: str = "captum"

    def missing(self) -> str | None:
        """Compiling for the CPU needs a C++ compiler."""
        if self.tier == "compiled" and not any(map(shutil.which, ("g++", "c++", "clang++"))):
            return "torch.compile finds no C++ compiler"
        return super().missing()

    @property
    def _factor(self) -> int:
        """How many times the dtype's tolerance is allowed."""
        return 1 if self.tier == "default" else OTHER_KERNELS

    def subject(self, case: Case, device: str) -> tuple[nn.Module, Tensor]:
        """The model and the inputs as the tier lays them out."""
        model, inputs = subject_of(case, device)
        assert inputs is not None
        if self.tier == "default":
            return own(model), inputs
        layout = torch.channels_last
        return own(model).to(memory_format=layout), inputs.contiguous(memory_format=layout)

    def entered(self, model: nn.Module, answer: Callable[[nn.Module], Callable[[], Tensor]]) -> Contestant:
        """The tier's call, of the model that Captum is given."""
        if self.tier != "compiled":
            return Contestant(answer(model), model)
        compiled: nn.Module = torch.compile(model)  # type: ignore[assignment]
        call = answer(compiled)

        def quiet() -> Tensor:
            with warnings.catch_warnings():
                # the compiler itself looks at .grad of the layer's output, where Captum's hook breaks the graph
                warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
                return call()

        return Contestant(quiet, model, eager=answer(model))


@dataclass(frozen=True, kw_only=True)
class CaptumOcclusion(Captum):
    """``Occlusion``: one window per forward by default; the best of the sweep under ``inference_mode`` when tuned."""

    def enter(self, case: Case, device: str, *, sweep: bool) -> Contestant:
        """Maps (N, C, H, W) of the windows that are timed."""
        attr = import_module("captum.attr")
        technique = case.timed
        assert isinstance(technique, Occlusion)
        model, inputs = self.subject(case, device)
        found = sweep_of(case, device) if sweep and self.tier != "default" else {}
        chunk = min(found, key=found.__getitem__) if found else SMOKE_CHUNK
        window, stride = ((inputs.shape[1], *pair) for pair in (technique.size, technique.step))

        def answer(run: nn.Module) -> Callable[[], Tensor]:
            method = attr.Occlusion(run)
            if self.tier == "default":
                return lambda: method.attribute(inputs, window, strides=stride, target=classes(case))

            def call() -> Tensor:
                with torch.inference_mode():
                    maps: Tensor = method.attribute(
                        inputs, window, strides=stride, target=classes(case), perturbations_per_eval=chunk
                    )
                    return maps

            return call

        pixels = case.question.pixels
        scale = windows(case.technique, pixels) / windows(technique, pixels)
        return replace(self.entered(model, answer), scale=scale, sweep=found)

    def check(self, case: Case, device: str, answer: Tensor, ours: Attribution) -> Check:
        """The rule by which backends are compared, on one of Captum's equal channels."""
        found = case.timed.agreement(ours, answered(ours, self, "input", answer[:, :1]))
        factor = self._factor
        allowed = [a.tolerance * factor for a in found]
        agreements = [
            replace(a, tolerance=most, holds=a.difference <= most) for a, most in zip(found, allowed, strict=True)
        ]
        return Check(agreements, f"maps, within {factor} × the dtype's tolerance × (max|map| + max|score|)")


@dataclass(frozen=True, kw_only=True)
class CaptumGradCAM(Captum):
    """``LayerGradCam`` with ReLU, then ``LayerAttribution.interpolate``; it fails under ``inference_mode``."""

    def enter(self, case: Case, device: str, *, sweep: bool) -> Contestant:
        """Maps (N, 1, H, W)."""
        attr = import_module("captum.attr")
        assert isinstance(case.technique, GradCAM)
        model, inputs = self.subject(case, device)
        layer, size = model.get_submodule(case.subject.late), tuple(inputs.shape[2:])

        def answer(run: nn.Module) -> Callable[[], Tensor]:
            method = attr.LayerGradCam(run, layer)

            def call() -> Tensor:
                map_ = method.attribute(inputs, target=classes(case), relu_attributions=True)
                resized: Tensor = attr.LayerAttribution.interpolate(map_, size, interpolate_mode="bilinear")
                return resized.detach()

            return call

        return self.entered(model, answer)

    def check(self, case: Case, device: str, answer: Tensor, ours: Attribution) -> Check:
        """The maps at the inputs' size."""
        raw, maps = ours.raw[case.subject.late], ours.maps[case.subject.late]
        factor = self._factor
        agreements = [
            agree(f"image {n}", x, y, relative=0.0, absolute=factor * tolerance(ours) * float(raw[n].abs().max()))
            for n, (x, y) in enumerate(zip(maps, answer, strict=True))
        ]
        return Check(agreements, f"upsampled maps, within {factor} × the dtype's tolerance × max|raw|")


@dataclass(frozen=True, kw_only=True)
class CaptumActivations(Captum):
    """``LayerActivation``; under ``inference_mode`` when tuned."""

    def enter(self, case: Case, device: str, *, sweep: bool) -> Contestant:
        """The layer's output."""
        attr = import_module("captum.attr")
        assert isinstance(case.technique, Activations)
        model, inputs = self.subject(case, device)
        method = attr.LayerActivation(model, model.get_submodule(case.technique.layers[0]))

        def call() -> Tensor:
            with torch.inference_mode(self.tier != "default"):
                values: Tensor = method.attribute(inputs)
                return values

        return Contestant(call, model)

    def check(self, case: Case, device: str, answer: Tensor, ours: Attribution) -> Check:
        """The rule by which backends are compared."""
        assert isinstance(case.technique, Activations)
        theirs = answered(ours, self, case.technique.layers[0], answer)
        return Check(case.timed.agreement(ours, theirs), "values, within the dtype's tolerance × max|value|")
