"""Where examples and channels lie in what a layer gives, looked up once for each shape."""

from torch import Tensor, nn

from attribution import layers
from attribution.inputs.inputs import Inputs
from attribution.layers import Axes


class Reading:
    """Axes by shape.

    Args:
        model: Isolated, eval mode.
        inputs: The start images.
        layer: As the user writes it; ``None``: the model's own logits, (B, K).
        stated: The axis of the channels, if the user says it.
        sides: Whether it matters where channels lie.
    """

    def __init__(self, model: nn.Module, inputs: Inputs, layer: str | None, stated: int | None, *, sides: bool) -> None:
        self._model, self._inputs, self._layer, self._stated, self._sides = model, inputs, layer, stated, sides
        self._known: dict[tuple[int, ...], Axes] = {}

    def __call__(self, output: Tensor, rows: int) -> Axes:
        """Of an output for so many images.

        Raises:
            LayerError: No axis is that of the images, or nothing tells channels from places.
        """
        shape = tuple(output.shape)
        if self._layer is None:
            return Axes()
        if shape not in self._known:
            self._known[shape] = self._looked_up(self._layer, shape, rows)
        return self._known[shape]

    def _looked_up(self, layer: str, shape: tuple[int, ...], rows: int) -> Axes:
        if shape[0] != rows and not (len(shape) == 3 and shape[1] == rows):
            rows = shape[0]  # a model that shows the layer more than these images: they come first
        if self._sides:
            return layers.axes_of(
                self._model, self._inputs, layer, shape, rows, stated=self._stated, owner="FilterVisualization"
            )
        examples = layers.examples_axis(layer, shape, rows, layers.alone(self._model, self._inputs, layer))
        return Axes(examples, 1 - examples)
