"""Grad-CAM++: which regions drive the prediction, where several of them show the same thing?"""

from dataclasses import dataclass
from typing import ClassVar

from attribution.techniques.cam.family import CAM


@dataclass(frozen=True, kw_only=True)
class GradCAMPlusPlus(CAM):
    r"""Channels of a layer, weighted by a sum of their positive gradients in which α decides what each place counts.

    With g = ∂score / ∂A: α[k, p] = g[k, p]² / (2 g[k, p]² + Σ over q of A[k, q] · g[k, p]³), and 0/0 = 0;
    w[k] = Σ over p of α[k, p] · ReLU(g[k, p]);  raw[p] = Σ over k of w[k] · A[k, p];  map = upsample(ReLU(raw)),
    without aligned corners.

    Sign and unit: positive where the layer holds what some place of it raises the score by; it has no unit, and twice
    the score is another map, not twice the map, since 2 is added to Σ A · g. Compare places of one map, not maps.
    Of a layer with negative values Σ A · g may come near −2, where α has a pole; take one without. Never normalised.
    Raw maps are (N, T, h, w), maps (N, T, H, W), or (N, T, h, w) without ``upsample``; layers of other ranks likewise.

    Args:
        layers, relu, upsample, tokens: See `CAM`.

    Raises:
        InputError, LayerError: See `CAM`.

    Source: A. Chattopadhay, A. Sarkar, P. Howlader, V. N. Balasubramanian, *Grad-CAM++: Improved Visual Explanations
    for Deep Convolutional Networks*, WACV 2018, equation 19. Departs from the paper: in w the gradient is the score's
    and not that of exp(score), which would multiply each map by a number.
    """

    name: ClassVar[str] = "grad_cam_plus_plus"
    title: ClassVar[str] = "Grad-CAM++"

    def unit_of(self, score: str) -> str:
        """None: see above."""
        return ""
