"""LayerCAM: which places of a layer, an early one too, drive the prediction?"""

from dataclasses import dataclass
from typing import ClassVar

from attribution.techniques.cam.family import CAM


@dataclass(frozen=True, kw_only=True)
class LayerCAM(CAM):
    r"""Every value of a layer, weighted by its own positive gradient, and summed over channels.

    raw[p] = Σ over k of ReLU(∂score / ∂A[k, p]) · A[k, p];  map = upsample(ReLU(raw)), without aligned corners.

    Sign and unit: positive where the layer's evidence raises the score; in units of the score. A layer without negative
    values, such as one after a ReLU, has no negative evidence. Never normalised. Raw maps are (N, T, h, w), maps
    (N, T, H, W), or (N, T, h, w) without ``upsample``; layers of other ranks likewise.

    Args:
        layers, relu, upsample, tokens: See `CAM`.

    Raises:
        InputError, LayerError: See `CAM`.

    Source: P.-T. Jiang et al., *LayerCAM: Exploring Hierarchical Class Activation Maps for Localization*, IEEE
    Transactions on Image Processing 30, 2021, section III. Departs from the paper: maps of several layers are not
    fused, and those of early layers not scaled by tanh for it.
    """

    name: ClassVar[str] = "layer_cam"
    title: ClassVar[str] = "Layer-CAM"
