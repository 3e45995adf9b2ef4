"""Ablation-CAM: which regions drive the prediction, by what the score loses where a channel is taken away?"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from attribution.agreement import Agreement, agree, relative_tolerance
from attribution.errors import ModelError
from attribution.technique import Comparable, paired_maps
from attribution.techniques.cam.family import CAM


@dataclass(frozen=True, kw_only=True)
class AblationCAM(CAM):
    r"""Channels of a layer, weighted by the part of the score that is lost without the channel, and summed.

    w[k] = (S − S with A[k] = 0) / |S|;  raw[p] = Σ over k of w[k] · A[k, p];  map = upsample(ReLU(raw)), without
    aligned corners.

    Sign and unit: positive where the layer holds what raises the score; in units of the layer, since w is a part of
    the score. Never normalised. No gradient is taken. Raw maps are (N, T, h, w), maps (N, T, H, W), or (N, T, h, w)
    without ``upsample``; layers of other ranks likewise. Of tokens the leading ones keep their values.
    ``Execution.batch_size`` counts ablated channels.

    Args:
        layers, relu, upsample, tokens: See `CAM`.

    Raises:
        InputError, LayerError: See `CAM`.
        ModelError: When run: a score is 0, of which nothing is a part.

    Source: S. Desai, H. G. Ramaswamy, *Ablation-CAM: Visual Explanations for Deep Convolutional Network via
    Gradient-free Localization*, WACV 2020, equations 1 and 2. Departs from the paper: w is divided by |S| and not by S,
    which would turn the map of a negative score over.
    """

    name: ClassVar[str] = "ablation_cam"
    title: ClassVar[str] = "Ablation-CAM"
    takes_gradients: ClassVar[bool] = False
    compares_scores: ClassVar[bool] = True
    batch_of: ClassVar[Literal["images", "windows", "filters"]] = "windows"

    def told(self, layer: str, activation: Tensor, scores: Tensor, largest: Tensor) -> dict[str, Tensor]:
        """The extra (N, T) by which a map's rounding goes: max over p of √(Σ over k of A[k, p]²) · max|score| / |S|.

        Args:
            layer: Its name.
            activation: (N, D, *places).
            scores: (N, T), S.
            largest: (N,), max|score|.

        Raises:
            ModelError: A score is 0.
        """
        if bool((scores == 0).any()):
            raise ModelError(
                "a score is 0, and Ablation-CAM tells which part of the score each channel is; explain another number, "
                "such as ClassScore(…, of='probability')"
            )
        size = activation.float().square().sum(1).sqrt().reshape(len(activation), -1).amax(1)
        return {f"rounding {layer}": (size.to(largest.device) * largest)[:, None] / scores.abs()}

    def unit_of(self, score: str) -> str:
        """The layer's."""
        return "unit of the layer"

    def agreement(self, a: Comparable, b: Comparable) -> list[Agreement]:
        """max|a − b| ≤ tolerance · (max|map| + the extra "rounding"): w is a difference of nearly equal scores."""
        found = []
        for key in sorted({*a.raw, *b.raw}):
            sizes = [side.extras[f"rounding {key}"].max() for side in (a, b) if f"rounding {key}" in side.extras]
            for name, x, y, dtype in paired_maps(a, b, by_target=True, only=key):
                part = relative_tolerance(dtype, host=a.on_host and b.on_host)
                room = part * max(map(float, sizes), default=0.0)
                found.append(agree(name, x, y, relative=part, absolute=room))
        return found
