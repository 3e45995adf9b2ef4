"""Score-CAM: which regions drive the prediction, by the score of the input seen through each channel?"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from attribution.errors import LayerError
from attribution.inputs.inputs import Inputs
from attribution.techniques.cam.family import CAM
from attribution.techniques.cam.tokens import Grid


@dataclass(frozen=True, kw_only=True)
class ScoreCAM(CAM):
    r"""Channels of a layer, weighted by a softmax of the scores of the input seen through each of them, and summed.

    H[k] = (U[k] − min U[k]) / (max U[k] − min U[k]), and 0 where A[k] is constant, with U[k] = upsample(A[k]) to the
    places of the input, linear and without aligned corners; w = softmax over k of S(x · H[k]);
    raw[p] = Σ over k of w[k] · A[k, p];  map = upsample(ReLU(raw)), likewise.

    The paper subtracts the score of a baseline input before the softmax, which takes it out again. Where logits are
    large, the softmax leaves one channel: the map is that channel.

    Sign and unit: in units of the layer, of which it is a weighted mean over channels; without ``relu`` negative where
    the layer is. Never normalised. No gradient is taken. Raw maps are (N, T, h, w), maps (N, T, H, W), or (N, T, h, w)
    without ``upsample``; series and volumes likewise. ``Execution.batch_size`` counts masked inputs.

    Args:
        layers: Layers with places, which an explained input has too; see `CAM`.
        relu, upsample, tokens: See `CAM`; the channels are enlarged in any case.

    Raises:
        InputError: See `CAM`.
        LayerError: When run: see `CAM`; or the layer has no places, or no explained input has as many axes of them.

    Source: H. Wang et al., *Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks*, CVPR 2020
    workshops, equations 5 to 8 and section 3.2. Departs from the paper: nowhere (it does not say how it upsamples).
    """

    name: ClassVar[str] = "score_cam"
    title: ClassVar[str] = "Score-CAM"
    takes_gradients: ClassVar[bool] = False
    batch_of: ClassVar[Literal["images", "windows", "filters"]] = "windows"

    def unit_of(self, score: str) -> str:
        """The layer's."""
        return "unit of the layer"

    def seen_through(self, layer: str, grid: Grid, inputs: Inputs) -> str:
        """The input that is seen through a layer: the first explained one with as many axes of places.

        Raises:
            LayerError: There is none.
        """
        axes = len(grid.places)
        for name in inputs.explained:
            if axes and len(inputs.places(name)) == axes:
                return name
        raise LayerError(
            f"layer {layer!r} has {axes} axes of places, and no explained input has; Score-CAM looks at an input "
            "through a layer's channels: choose a layer with places, or AblationCAM"
        )
