"""Grad-CAM: which regions drive the prediction?"""

from dataclasses import dataclass
from typing import ClassVar

from attribution.techniques.cam.by_channel import CAMByChannel


@dataclass(frozen=True, kw_only=True)
class GradCAM(CAMByChannel):
    r"""Channels of a layer, weighted by the mean gradient of the score and summed.

    α[k] = mean over places p of ∂score / ∂A[k, p];  raw[p] = Σ over k of α[k] · A[k, p];
    map = upsample(ReLU(raw)), without aligned corners.

    Sign and unit: positive where the layer's evidence raises the score; in units of the score. Never normalised.
    Raw maps are (N, T, h, w), maps (N, T, H, W), or (N, T, h, w) without ``upsample``; layers of other ranks likewise.

    Args:
        layers, relu, upsample, tokens: See `CAM`.
        channels: ``"none"``: the terms of the sum, (N, T, D, …); see `CAMByChannel`.

    Raises:
        InputError, LayerError: See `CAM`.

    Source: R. R. Selvaraju et al., *Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization*, ICCV 2017, section 3. Departs from the paper: nowhere (the paper's figures are scaled for display).
    """

    name: ClassVar[str] = "grad_cam"
    title: ClassVar[str] = "Grad-CAM"
