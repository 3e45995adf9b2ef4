"""Element-wise Grad-CAM: which values of a layer raise the score, place by place and channel by channel?"""

from dataclasses import dataclass
from typing import ClassVar

from attribution.techniques.cam.family import CAM


@dataclass(frozen=True, kw_only=True)
class ElementWiseCAM(CAM):
    r"""Every value of a layer times its own gradient, where that is positive, summed over channels.

    raw[p] = Σ over k of ReLU(∂score / ∂A[k, p] · A[k, p]);  map = upsample(raw), without aligned corners.

    Sign and unit: not negative, since channels that lower the score count nothing at a place, and take nothing away
    from the others; in units of the score. Never normalised. Raw maps are (N, T, h, w), maps (N, T, H, W), or
    (N, T, h, w) without ``upsample``; layers of other ranks likewise.

    Args:
        layers, relu, upsample, tokens: See `CAM`.

    Raises:
        InputError, LayerError: See `CAM`.

    Source: V. Pillai, H. Pirsiavash, *Explainable Models with Consistent Interpretations*, AAAI 2021. Departs from the
    paper: nowhere (the paper trains models by these maps).
    """

    name: ClassVar[str] = "element_wise_cam"
    title: ClassVar[str] = "Element-wise CAM"

    @property
    def signed(self) -> bool:
        """Never."""
        return False
