"""Guided Grad-CAM: which pixels of the regions that drive the prediction?"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from torch import nn

from attribution.errors import LayerError
from attribution.inputs.inputs import Inputs
from attribution.techniques.cam.grad_cam import GradCAM
from attribution.techniques.cam.tokens import Grid, Tokens, checked
from attribution.techniques.gradient.family import AveragedGradient, Point

_MEND = "; choose a layer that lies on the input, or keep the input out: Inputs.of(…, axes={NAME: 'n'})"


@dataclass(frozen=True, kw_only=True, eq=False)
class GuidedGradCAM(AveragedGradient):
    r"""Guided backpropagation, weighed by the enlarged Grad-CAM of a layer.

    raw = GuidedBackprop · upsample(ReLU(GradCAM)), bilinear (linear, trilinear), without aligned corners. Grad-CAM has
    the plain gradient, see `GradCAM`; for the other factor see `GuidedBackprop`.

    Sign and unit: that of guided backpropagation, zero where the layer has no evidence for the score; in units of the
    score, squared, per unit of the model's input. Raw maps are (N, T, C, …), and so are maps; (N, T, …) with other
    ``channels``.

    Args:
        layer: As one of `CAM`'s ``layers``; empty: the same default. It has as many axes of places as every explained
            input.
        tokens: How the layer's output covers the input, as in `CAM`.
        channels: See `AveragedGradient`.

    Raises:
        InputError: A field is of the wrong type.
        LayerError: When run: the layer cannot be explained, see `CAM`, or has other places than an explained input.
        ModelError: When run: as for `GuidedBackprop`.

    Source: R. R. Selvaraju et al., *Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization*,
    ICCV 2017, section 3.2. Departs from the paper: nowhere.
    """

    name: ClassVar[str] = "guided_grad_cam"
    title: ClassVar[str] = "Guided Grad-CAM"

    layer: str = ""
    tokens: Tokens = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checked("GuidedGradCAM", self.tokens)
        object.__setattr__(self, "tokens", self.cam.tokens)

    @property
    def cam(self) -> GradCAM:
        """The other factor."""
        return GradCAM(layers=(self.layer,) if self.layer != "" else (), tokens=self.tokens)

    def named(self, model: nn.Module) -> tuple[str, ...]:
        """The layer."""
        return self.cam.layers

    def resolve(self, model: nn.Module, inputs: Inputs) -> Self:
        """Grad-CAM's default layer where none is named."""
        return replace(self, layer=self.cam.resolve(model, inputs).layers[0])

    def points(self, inputs: Inputs) -> Iterator[Point]:
        """The inputs."""
        yield Point(inputs)

    def read(self, shape: tuple[int, ...], model: nn.Module, inputs: Inputs) -> Grid:
        """How the layer's output of this shape covers the inputs; refused where its map fits one of them not.

        Raises:
            LayerError: It has other axes of places than an explained input, or none; or no grid at all.
        """
        grid = self.cam.grid(self.layer, shape, model, inputs)
        own, axes = len(grid.places), {name: len(inputs.places(name)) for name in inputs.explained}
        if odd := [name for name, count in axes.items() if count != own or not own]:
            raise LayerError(f"{self.layer!r} has {own} axes of places, {odd[0]!r} has {axes[odd[0]]}{_MEND}")
        return grid

    def unit_of(self, score: str) -> str:
        """That of the product."""
        return f"{score}² per unit of the input"

    @classmethod
    def example(cls) -> Self:
        """One layer of the small models, channels added up."""
        return cls(layer="body", channels="sum")
