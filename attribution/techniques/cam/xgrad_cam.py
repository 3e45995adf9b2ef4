"""XGrad-CAM: which regions drive the prediction, by weights that the channels' own values decide?"""

from dataclasses import dataclass
from typing import ClassVar

from attribution.techniques.cam.family import CAM


@dataclass(frozen=True, kw_only=True)
class XGradCAM(CAM):
    r"""Channels of a layer, weighted by the mean of their gradients, in which each place counts by its activation.

    w[k] = Σ over p of ∂score / ∂A[k, p] · A[k, p] / (Σ over p of A[k, p] + 1e-7);  raw[p] = Σ over k of w[k] · A[k, p];
    map = upsample(ReLU(raw)), without aligned corners.

    Sign and unit: positive where the layer's evidence raises the score; in units of the score. Each channel adds up to
    Σ over p of ∂score / ∂A · A, as in HiResCAM. The 1e-7 is in units of the layer: it gives channels of zeros the
    weight 0. Where positive and negative values of a channel cancel, its weight is large and means little; take a layer
    without negative values. Never normalised. Raw maps are (N, T, h, w), maps (N, T, H, W), or (N, T, h, w) without
    ``upsample``; layers of other ranks likewise.

    Args:
        layers, relu, upsample, tokens: See `CAM`.

    Raises:
        InputError, LayerError: See `CAM`.

    Source: R. Fu, Q. Hu, X. Dong, Y. Guo, Y. Gao, B. Li, *Axiom-based Grad-CAM: Towards Accurate Visualization and
    Explanation of CNNs*, BMVC 2020, equation 6. Departs from the paper: by the 1e-7, which is pytorch-grad-cam's too.
    """

    name: ClassVar[str] = "xgrad_cam"
    title: ClassVar[str] = "XGrad-CAM"
