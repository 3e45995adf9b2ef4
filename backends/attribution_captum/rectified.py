"""Guided backpropagation, deconvolution and guided Grad-CAM by Captum's classes of these names."""

from abc import ABC
from typing import Any, ClassVar, TypeVar

import captum.attr
from torch import Tensor

from attribution import layers
from attribution.attributor import Run
from attribution.inputs.inputs import Inputs
from attribution.technique import Maps
from attribution.techniques.gradient.deconvolution import Deconvolution
from attribution.techniques.gradient.family import AveragedGradient
from attribution.techniques.gradient.guided_backprop import GuidedBackprop
from attribution.techniques.gradient.guided_grad_cam import GuidedGradCAM
from attribution_captum.cam import detoured, unwritten, without_influence
from attribution_captum.gradients import PerTarget, Score, Tensors, leaves
from attribution_captum.layer import connected, places
from attribution_captum.rectifiers import quiet, watched

T = TypeVar("T", bound=AveragedGradient)


class _Rectified(PerTarget[T], ABC):
    """One of Captum's classes that change the backward of ``nn.ReLU``; what they would pass over is refused."""

    method: ClassVar[Any]

    def ask(self, run: Run[T], score: Score, inputs: Inputs, examples: Tensor) -> Tensors:
        """One call, with the score as a module that has the model's."""
        with watched(run, score) as module:
            method = quiet(self.method)(module)
            found: Tensors = method.attribute(leaves(inputs), additional_forward_args=(examples,))
            return found


class CaptumGuidedBackprop(_Rectified[GuidedBackprop]):
    """By ``GuidedBackprop``, which sees modules only."""

    technique_type: ClassVar[type[GuidedBackprop]] = GuidedBackprop
    method: ClassVar[Any] = captum.attr.GuidedBackprop


class CaptumDeconvolution(_Rectified[Deconvolution]):
    """By ``Deconvolution``, which sees modules only."""

    technique_type: ClassVar[type[Deconvolution]] = Deconvolution
    method: ClassVar[Any] = captum.attr.Deconvolution


class CaptumGuidedGradCAM(PerTarget[GuidedGradCAM]):
    """By ``GuidedGradCam``, with a forward for each factor; bilinear, where its own default is the nearest neighbour.

    Of a map that it cannot enlarge it would give an empty tensor; such layers are refused before.
    """

    technique_type: ClassVar[type[GuidedGradCAM]] = GuidedGradCAM

    def compute(self, run: Run[GuidedGradCAM]) -> Maps:
        """As for the others, once the layer was found to be one that Captum takes."""
        places(run.model, [run.technique.layer], run.inputs)
        return super().compute(run)

    def ask(self, run: Run[GuidedGradCAM], score: Score, inputs: Inputs, examples: Tensor) -> Tensors:
        """One call, of the layer or of its output on its grid."""
        text = run.technique.layer
        ((name, module),) = places(run.model, [text], run.inputs)
        shape, first = layers.alone(run.model, run.inputs, text) or (), run.inputs[:1]
        grid = run.technique.read(shape, run.model, first)
        run.notes.update(run.technique.cam.notes({text: grid}, run.inputs))
        mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(grid.places)]
        manner = {"interpolate_mode": mode, "attribute_to_layer_input": name.entry}
        around = connected(without_influence(name))
        with (
            watched(run, score) as whole,
            detoured(name, module, grid) as (layer, _),
            around,
            unwritten(name, module, runs=1),
        ):
            method = captum.attr.GuidedGradCam(whole, layer)
            method.guided_backprop = quiet(captum.attr.GuidedBackprop)(whole)
            found: Tensors = method.attribute(leaves(inputs), additional_forward_args=(examples,), **manner)
        assert all(map_.shape == x.shape for map_, x in zip(found, leaves(inputs), strict=True)), "an empty map"
        return found
