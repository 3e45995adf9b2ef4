"""Intermediate activations: what does each layer see?"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from torch import nn

from attribution.inputs.inputs import Inputs
from attribution.layers import Axes, activation_layers, alone, axes_of, examples_axis, no_space
from attribution.technique import Kind, Maps, Technique
from attribution.techniques.parameters import axis, choice, layer_names


@dataclass(frozen=True, kw_only=True)
class Activations(Technique):
    r"""The output of each layer, as the layer gave it.

    map[layer] = A = layer(…), taken before any later in-place operation, detached; with ``reduce="mean"`` the mean of
    A[n, k, p] over all places p, class tokens included.

    Sign and unit: the layer's own. Maps are (N, D, h, w); layers of other ranks keep their shape. Sequence-first tokens
    (L, N, D) are given as (N, L, D). Means are (N, D).

    Args:
        layers: Names as ``model.named_modules()`` prints them; ``name#k`` is the k-th run (from 0) of a module that
            runs several times, ``name[key]`` one item of a tuple or dict output, ``name[1][0]`` an item of an item.
            ``name:in`` is the layer's input, ``name:in[1]`` or ``name:in[mask]`` one of several arguments by position
            or keyword; ``name#k:in`` that of a run. Empty: the max-pools of the main path where there are at least
            three, else the last module of each resolution, up to Grad-CAM's default; for inputs that are no images the
            last module with parameters of each resolution.
        reduce: ``"none"``: the maps; ``"mean"``: one number per channel, formed while the forward runs, so that the
            maps themselves need not be kept.
        channel_axis: Which axis of the layers' own outputs is D, for the means. ``None``: told by the modules, see
            `attribution.layers.axes`; axis 1 of grids and the last one of tokens and channels-last layers.

    Raises:
        InputError: ``layers`` is not a tuple of different names, ``reduce`` is neither of the two, or ``channel_axis``
            is no int.
        LayerError: When run: a layer does not exist, never runs, runs several times, has no places of which to take the
            mean, or nothing tells its channels from its places.

    Source: M. D. Zeiler, R. Fergus, *Visualizing and Understanding Convolutional Networks*, ECCV 2014, section 4.
    Departs from the paper: shows the activations themselves, without a deconvolution back to the input.
    """

    name: ClassVar[str] = "activations"
    kind: ClassVar[Kind] = "activation"
    needs_target: ClassVar[bool] = False
    takes_gradients: ClassVar[bool] = False
    takes_integers: ClassVar[bool] = True

    layers: tuple[str, ...] = ()
    reduce: Literal["none", "mean"] = "none"
    channel_axis: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", layer_names("Activations", self.layers))
        object.__setattr__(self, "reduce", choice("Activations", "reduce", self.reduce, ("none", "mean")))
        if self.channel_axis is not None:
            object.__setattr__(self, "channel_axis", axis("Activations", self.channel_axis))

    def named(self, model: nn.Module) -> tuple[str, ...]:
        """The layers."""
        return self.layers

    def resolve(self, model: nn.Module, inputs: Inputs) -> Self:
        """Take the default layers where none are named."""
        return self if self.layers else replace(self, layers=activation_layers(model, inputs))

    def axes(self, model: nn.Module, inputs: Inputs, layer: str, shape: tuple[int, ...]) -> Axes:
        """Where examples and channels lie in what a layer gives; one rule for every backend.

        Args:
            model: Isolated, eval mode.
            inputs: Of the call.
            layer: As the user writes it.
            shape: Of what the layer gives for all examples.

        Raises:
            LayerError: No axis is that of the examples; with ``reduce="mean"`` there are no places, or nothing tells
                them from channels.
        """
        if self.reduce == "none":
            one = alone(model, inputs, layer) if len(shape) == 3 else None  # only three axes leave a choice
            examples = examples_axis(layer, shape, len(inputs), one)
            return Axes(examples, 1 - examples)
        found = axes_of(model, inputs, layer, shape, len(inputs), stated=self.channel_axis)
        if len(shape) < 3:
            raise no_space(layer, shape)
        return found

    def finish(self, raw: Maps, inputs: Inputs) -> Maps:
        """The raw maps themselves; each backend takes its own means."""
        return raw

    @classmethod
    def example(cls) -> Self:
        """Two layers of the small models."""
        return cls(layers=("stem", "body"))
