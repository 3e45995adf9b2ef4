"""Grad-CAM: which regions drive the prediction?"""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import nn
from torch.nn import functional as F

from attribution.inputs.inputs import Inputs
from attribution.layers import grad_cam_layer
from attribution.technique import Kind, Maps, Technique
from attribution.techniques.cam.tokens import Grid, Tokens, checked, grid
from attribution.techniques.parameters import flag, layer_names


@dataclass(frozen=True, kw_only=True)
class GradCAM(Technique):
    r"""Channels of a layer, weighted by the mean gradient of the score and summed.

    α[k] = mean over i, j of ∂logit[target] / ∂A[k, i, j];  raw = Σ over k of α[k] · A[k];
    map = upsample(ReLU(raw)), bilinear without aligned corners.

    Sign and unit: positive where the layer's evidence raises the logit; in units of the logit. Never normalised.
    Raw maps are (N, T, h, w), maps (N, T, H, W), or (N, T, h, w) without ``upsample``.

    Args:
        layers: Layers with output (N, D, h, w), or tokens on a grid, named as in `Activations`. Empty: the last block
            before the classifier whose output is spatial and not a pool's; of an encoder, where there is a decoder.
        relu: Keep positive evidence only, as the paper does, before upsampling.
        upsample: To the size of the inputs.
        tokens: How the layers' outputs cover the image. ``"channels_first"``: (N, D, h, w). ``"channels_last"``:
            (N, h, w, D), as in Swin. ``(leading, h, w)``: (N, leading + h·w, D), row by row after ``leading`` class or
            register tokens, which have no place in the map. ``None``: inferred per layer. Four axes are channels
            first, unless axes 1 and 2 have the image's aspect, axes 2 and 3 have not, and the model computes on last
            axes. Of (N, L, D), L = h·w or 1 + h·w (else up to 8 leading tokens) for square patches that divide the
            image; what was inferred is in the provenance.

    Raises:
        InputError: A field is of the wrong type.
        LayerError: When run: a layer does not exist, never runs, has no influence on the score, or its output has no
            height and width, does not fit ``tokens``, or may be read in two ways.

    Source: R. R. Selvaraju et al., *Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization*, ICCV 2017, section 3. Departs from the paper: nowhere (the paper's figures are scaled for display).
    """

    name: ClassVar[str] = "grad_cam"
    kind: ClassVar[Kind] = "heatmap"
    needs_target: ClassVar[bool] = True
    compares_scores: ClassVar[bool] = False

    layers: tuple[str, ...] = ()
    relu: bool = True
    upsample: bool = True
    tokens: Tokens = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", layer_names("GradCAM", self.layers))
        for name in ("relu", "upsample"):
            object.__setattr__(self, name, flag("GradCAM", name, getattr(self, name)))
        object.__setattr__(self, "tokens", checked("GradCAM", self.tokens))

    @property
    def signed(self) -> bool:
        """Without the ReLU, negative values are evidence against the target."""
        return not self.relu

    def named(self, model: nn.Module) -> tuple[str, ...]:
        """The layers."""
        return self.layers

    def resolve(self, model: nn.Module, inputs: Inputs) -> Self:
        """Take the default layer where none is named."""
        return self if self.layers else replace(self, layers=(grad_cam_layer(model, inputs),))

    def grid(self, layer: str, shape: tuple[int, ...], model: nn.Module, inputs: Inputs) -> Grid:
        """How a layer's output of this shape covers the image: by ``tokens``, or inferred; one rule for every backend.

        Raises:
            LayerError: It has no grid, does not fit ``tokens``, or may be read in two ways.
        """
        return grid(self.tokens, layer, shape, model, inputs)

    def finish(self, raw: Maps, inputs: Inputs) -> Maps:
        """ReLU, then bilinear upsampling to the inputs' height and width."""
        size = tuple(inputs.shape[2:])
        maps = {layer: torch.relu(map_) for layer, map_ in raw.items()} if self.relu else raw
        if not self.upsample:
            return maps
        return {
            layer: F.interpolate(map_, size=size, mode="bilinear", align_corners=False) for layer, map_ in maps.items()
        }

    @classmethod
    def example(cls) -> Self:
        """One layer of the small models."""
        return cls(layers=("body",))
