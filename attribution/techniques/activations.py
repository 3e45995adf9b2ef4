"""Intermediate activations: what does each layer see?"""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from torch import Tensor, nn

from attribution.layers import activation_layers
from attribution.technique import Kind, Maps, Technique
from attribution.techniques.fields import layer_names


@dataclass(frozen=True, kw_only=True)
class Activations(Technique):
    r"""The output of each layer, as the layer gave it.

    map[layer] = A = layer(…), taken before any later in-place operation, detached.

    Sign and unit: the layer's own. Maps are (N, D, h, w); layers of other ranks keep their shape.

    Args:
        layers: Names as ``model.named_modules()`` prints them; ``name#k`` is the k-th run (from 0) of a module that
            runs several times, ``name[key]`` one item of a tuple or dict output. Empty: the max-pools of the main
            path where there are at least three, else the last module of each resolution.

    Raises:
        InputError: ``layers`` is not a tuple of different names.
        LayerError: When run: a layer does not exist, never runs, or runs several times.

    Source: M. D. Zeiler, R. Fergus, *Visualizing and Understanding Convolutional Networks*, ECCV 2014, section 4.
    Departs from the paper: shows the activations themselves, without a deconvolution back to the input.
    """

    name: ClassVar[str] = "activations"
    kind: ClassVar[Kind] = "activation"
    needs_target: ClassVar[bool] = False

    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", layer_names("Activations", self.layers))

    def resolve(self, model: nn.Module, inputs: Tensor) -> Self:
        """Take the default layers where none are named."""
        return self if self.layers else replace(self, layers=activation_layers(model, inputs))

    def finish(self, raw: Maps, inputs: Tensor) -> Maps:
        """The raw maps themselves."""
        return raw

    @classmethod
    def example(cls) -> Self:
        """Two layers of the small models."""
        return cls(layers=("stem", "body"))
