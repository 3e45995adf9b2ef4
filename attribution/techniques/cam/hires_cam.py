"""HiResCAM: which places of a layer, with what they hold, does the score rest on?"""

from dataclasses import dataclass
from typing import ClassVar

from attribution.techniques.cam.by_channel import CAMByChannel


@dataclass(frozen=True, kw_only=True)
class HiResCAM(CAMByChannel):
    r"""Every value of a layer, weighted by its own gradient, and summed over channels.

    raw[p] = Σ over k of ∂score / ∂A[k, p] · A[k, p];  map = upsample(ReLU(raw)), without aligned corners.

    Sign and unit: positive where the layer's evidence raises the score; in units of the score. Before a network's end
    that is linear without a bias, raw adds up to the score; before a mean over places and a linear layer it is
    Grad-CAM's. Never normalised. Raw maps are (N, T, h, w), maps (N, T, H, W), or (N, T, h, w) without ``upsample``;
    layers of other ranks likewise.

    Args:
        layers, relu, upsample, tokens: See `CAM`.
        channels: ``"none"``: the terms of the sum, (N, T, D, …); see `CAMByChannel`.

    Raises:
        InputError, LayerError: See `CAM`.

    Source: R. L. Draelos, L. Carin, *Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural
    networks*, arXiv 2011.08891, 2020. Departs from the paper: in the ReLU, which its formula does not have;
    ``relu=False`` is the formula.
    """

    name: ClassVar[str] = "hires_cam"
    title: ClassVar[str] = "HiResCAM"
