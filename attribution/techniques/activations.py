"""Intermediate activations: what does each layer see?"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from torch import nn

from attribution.inputs.inputs import Inputs
from attribution.layers import activation_layers
from attribution.technique import Kind, Maps, Technique
from attribution.techniques.parameters import choice, layer_names


@dataclass(frozen=True, kw_only=True)
class Activations(Technique):
    r"""The output of each layer, as the layer gave it.

    map[layer] = A = layer(…), taken before any later in-place operation, detached; with ``reduce="mean"`` the mean of
    A[n, k, i, j] over i and j.

    Sign and unit: the layer's own. Maps are (N, D, h, w); layers of other ranks keep their shape. Means are (N, D).

    Args:
        layers: Names as ``model.named_modules()`` prints them; ``name#k`` is the k-th run (from 0) of a module that
            runs several times, ``name[key]`` one item of a tuple or dict output. Empty: the max-pools of the main
            path where there are at least three, else the last module of each resolution, up to Grad-CAM's default.
        reduce: ``"none"``: the maps; ``"mean"``: one number per channel, formed while the forward runs, so that the
            maps themselves need not be kept.

    Raises:
        InputError: ``layers`` is not a tuple of different names, or ``reduce`` is neither of the two.
        LayerError: When run: a layer does not exist, never runs, runs several times, or has no height and width of
            which to take the mean.

    Source: M. D. Zeiler, R. Fergus, *Visualizing and Understanding Convolutional Networks*, ECCV 2014, section 4.
    Departs from the paper: shows the activations themselves, without a deconvolution back to the input.
    """

    name: ClassVar[str] = "activations"
    kind: ClassVar[Kind] = "activation"
    needs_target: ClassVar[bool] = False
    takes_gradients: ClassVar[bool] = False

    layers: tuple[str, ...] = ()
    reduce: Literal["none", "mean"] = "none"

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", layer_names("Activations", self.layers))
        object.__setattr__(self, "reduce", choice("Activations", "reduce", self.reduce, ("none", "mean")))

    def named(self, model: nn.Module) -> tuple[str, ...]:
        """The layers."""
        return self.layers

    def resolve(self, model: nn.Module, inputs: Inputs) -> Self:
        """Take the default layers where none are named."""
        return self if self.layers else replace(self, layers=activation_layers(model, inputs))

    def finish(self, raw: Maps, inputs: Inputs) -> Maps:
        """The raw maps themselves; each backend takes its own means."""
        return raw

    @classmethod
    def example(cls) -> Self:
        """Two layers of the small models."""
        return cls(layers=("stem", "body"))
