"""``CAM``: what techniques have in common that weigh the channels of a layer and add them up."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attribution.errors import LayerError
from attribution.inputs.inputs import Inputs
from attribution.isolation.notes import notes
from attribution.layers import grad_cam_default
from attribution.technique import Kind, Maps, Technique
from attribution.techniques.cam import reading
from attribution.techniques.cam.tokens import Grid, Tokens, checked
from attribution.techniques.parameters import flag, layer_names

MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True, kw_only=True)
class CAM(Technique):
    """A map per layer, example and target: a sum over the layer's channels, rectified and enlarged.

    A technique of the family states its formula and its name; a backend's family computes it. Raw maps are
    (N, T, *places): (N, T) of layers (N, D), (N, T, t) of (N, D, t), (N, T, h, w) of (N, D, h, w) or of tokens on a
    grid, (N, T, d, h, w) of (N, D, d, h, w).

    Args:
        layers: Layers with one of these outputs, named as in `Activations`. Empty: the last block before the classifier
            whose output is spatial and not a pool's; of an encoder, where there is a decoder. Of a model without such a
            block the first normalisation of the last block of tokens; ``tokens`` is filled in as well then.
        relu: Keep positive evidence only, before upsampling.
        upsample: To the places of the first explained input that has as many axes of them: linear, bilinear or
            trilinear, without aligned corners. A map without places, or without such an input, stays as it is.
        tokens: How the layers' outputs cover the input. ``"channels_first"``: (N, D, h, w). ``"channels_last"``:
            (N, h, w, D), as in Swin. ``(leading, h, w)``: (N, leading + h·w, D), row by row after ``leading`` class or
            register tokens, which have no place in the map. ``("sequence_first", leading, h, w)``: the same as
            (leading + h·w, N, D). ``("channels_first", h, w)``: (N, D, h·w). One size or three stand for h, w in series
            and volumes. ``None``: inferred per layer, and recorded in the provenance. Grids are channels first, unless
            the model computes on their last axes and the image's aspect fits there. Of three axes,
            `attribution.layers.axes` says which is the channels': (N, L, D), or (L, N, D) where axis 1 is that of the
            examples, with the steps of a series as L, or L = h·w or 1 + h·w (else up to 8 leading tokens) for square
            patches that divide the image; (N, D, h·w) where the model flattens a grid to that; else (N, D, T), as of a
            convolution over steps.

    Raises:
        InputError: A field is of the wrong type.
        LayerError: When run: a layer does not exist, never runs, has no influence on the score, or its output is no map
            and no tokens on a grid, does not fit ``tokens``, or may be read in two ways.
    """

    kind: ClassVar[Kind] = "heatmap"
    needs_target: ClassVar[bool] = True
    compares_scores: ClassVar[bool] = False

    layers: tuple[str, ...] = ()
    relu: bool = True
    upsample: bool = True
    tokens: Tokens = None

    def __post_init__(self) -> None:
        owner = type(self).__name__
        object.__setattr__(self, "layers", layer_names(owner, self.layers))
        for name in ("relu", "upsample"):
            object.__setattr__(self, name, flag(owner, name, getattr(self, name)))
        object.__setattr__(self, "tokens", checked(owner, self.tokens))

    @property
    def signed(self) -> bool:
        """Without the ReLU, negative values are evidence against the target."""
        return not self.relu

    def named(self, model: nn.Module) -> tuple[str, ...]:
        """The layers."""
        return self.layers

    def resolve(self, model: nn.Module, inputs: Inputs) -> Self:
        """Take the default layer where none is named.

        Raises:
            LayerError: There is none, as for inputs that are no images.
        """
        if self.layers:
            return self
        if len(inputs.places()) != 2:
            raise LayerError(
                f"inputs of shape {inputs} have no default layer; name one, e.g. "
                f"{type(self).__name__}(layers=('conv',)): `attribution layers` or model.named_modules() lists them"
            )
        layer, tokens = grad_cam_default(model, inputs)
        return replace(self, layers=(layer,), tokens=self.tokens or checked(type(self).__name__, tokens))

    def grid(self, layer: str, shape: tuple[int, ...], model: nn.Module, inputs: Inputs) -> Grid:
        """How a layer's output of this shape covers the input: by ``tokens``, or inferred; one rule for every backend.

        Raises:
            LayerError: It has no grid, does not fit ``tokens``, or may be read in two ways.
        """
        known: dict[object, Grid] = notes(model).setdefault("grids", {})
        key = (self.tokens, layer, shape, inputs.kind, len(inputs))
        if key not in known:
            known[key] = reading.grid(type(self).__name__, self.tokens, layer, shape, model, inputs)
        return known[key]

    def notes(self, grids: Mapping[str, Grid], inputs: Inputs) -> dict[str, str]:
        """What the provenance says of layers: how they were read, and which maps keep their size."""
        found = {}
        for layer, grid in grids.items():
            if self.tokens is None and not grid.plain:
                found[f"tokens {layer}"] = f"{grid}, inferred"
            if self.upsample and not reading.places_of(inputs, len(grid.places)):
                found[f"size {layer}"] = f"as computed, since no explained input has {len(grid.places)} axes of places"
        return found

    def finish(self, raw: Maps, inputs: Inputs) -> Maps:
        """ReLU, then upsampling to the places of the inputs."""
        maps = {layer: torch.relu(map_) for layer, map_ in raw.items()} if self.relu else raw
        return {layer: enlarged(map_, inputs) for layer, map_ in maps.items()} if self.upsample else maps

    @classmethod
    def example(cls) -> Self:
        """One layer of the small models."""
        return cls(layers=("body",))


def enlarged(map_: Tensor, inputs: Inputs) -> Tensor:
    """(N, T, *places) to the places of the first explained input that has as many axes of them, if any."""
    axes = map_.ndim - 2
    size = reading.places_of(inputs, axes) if axes else ()
    return F.interpolate(map_, size=size, mode=MODES[axes], align_corners=False) if size else map_
