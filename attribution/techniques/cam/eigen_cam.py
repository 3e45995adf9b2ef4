"""Eigen-CAM: where does a layer hold most of what it holds, whatever the class?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from attribution.agreement import Agreement, agree, relative_tolerance
from attribution.errors import LayerError
from attribution.inputs.inputs import Inputs
from attribution.technique import Comparable, paired_maps
from attribution.techniques.cam.family import CAM
from attribution.techniques.cam.tokens import Grid
from attribution.techniques.parameters import flag

SHARES = "explained_variance_ratio"
"""Of `Attribution.extras`, with the layer behind a space."""

MOST = 0.1
"""No two maps that differ by a larger part of their maximum agree, however near the second component is."""


@dataclass(frozen=True, kw_only=True)
class EigenCAM(CAM):
    r"""A layer's activations, projected on the direction of the channels in which they vary most over the places.

    With B[k, p] = A[k, p] − mean over q of A[k, q]: v = the unit vector that makes Σ over p of (Σ over k of
    v[k] · B[k, p])² largest, the first principal component;  raw[p] = Σ over k of v[k] · B[k, p];
    map = upsample(ReLU(raw)), without aligned corners.

    Of v and −v the one with Σ over k of v[k] > 0 is taken: the map whose correlation with the mean activation
    over the channels is positive, since Σ over p of raw[p] · mean over k of B[k, p] is a positive multiple of Σ v.
    Where that sum is zero within rounding, as behind a layer norm without weights, the place of the largest |raw| is
    positive.

    Sign and unit: positive where the layer holds more of what it varies by; that no score is asked means that it may
    be evidence for or against any class. In units of the layer. Never normalised. There is no target: raw maps are
    (N, 1, h, w), maps (N, 1, H, W), or (N, 1, h, w) without ``upsample``; layers of other ranks likewise, and none
    without places. ``extras["explained_variance_ratio LAYER"]`` (N, 2) is the part of Σ B² that lies in the first and
    in the second component. Where the two are near each other, the map may as well be any mixture of both.

    Args:
        layers, relu, upsample, tokens: See `CAM`.
        centred: ``False``: of A in place of B, the first singular vector, which is mostly near the mean activation.

    Raises:
        InputError: See `CAM`.
        LayerError: When run: see `CAM`; or the layer has no places.
        TargetError: When run: a target is given.

    Source: M. B. Muhammad, M. Yeasin, *Eigen-CAM: Class Activation Map using Principal Components*, IJCNN 2020,
    section III. Departs from the paper: its formula factorises A as it is (``centred=False``), where its title and
    all libraries take principal components, which are those of B; and the paper leaves the sign open.
    """

    name: ClassVar[str] = "eigen_cam"
    title: ClassVar[str] = "Eigen-CAM"
    needs_target: ClassVar[bool] = False
    takes_gradients: ClassVar[bool] = False

    centred: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "centred", flag("EigenCAM", "centred", self.centred))

    def grid(self, layer: str, shape: tuple[int, ...], model: nn.Module, inputs: Inputs) -> Grid:
        """As of all CAMs, with places.

        Raises:
            LayerError: It has none.
        """
        found = super().grid(layer, shape, model, inputs)
        if not found.places:
            raise LayerError(
                f"layer {layer!r} gives shape {shape}, and EigenCAM needs places over which channels vary: choose a "
                "layer that has them (`attribution layers` prints the shapes)"
            )
        return found

    def unit_of(self, score: str) -> str:
        """The layer's."""
        return "unit of the layer"

    def agreement(self, a: Comparable, b: Comparable) -> list[Agreement]:
        """max|a − b| ≤ tolerance · s₁ / (s₁ − s₂) · max|map|, at most a tenth of it; s are the extras.

        Rounding of a relative size turns a first component by its distance to the second one.
        """
        found = []
        for name, x, y, dtype in paired_maps(a, b, by_target=False):
            layer, _, image = name.rpartition(" · image ")
            spread = max((_spread(side.extras, layer, image) for side in (a, b)), default=1.0)
            relative = relative_tolerance(dtype, host=a.on_host and b.on_host)
            found.append(agree(name, x, y, relative=max(relative, min(relative * spread, MOST))))
        return found


def _spread(extras: Mapping[str, Tensor], layer: str, image: str) -> float:
    """s₁ / (s₁ − s₂)."""
    shares = extras.get(f"{SHARES} {layer}")
    first, second = (1.0, 0.0) if shares is None or not image else shares[int(image)].double().tolist()
    return first / (first - second) if first > second else 1.0 if first == 0 else float("inf")
