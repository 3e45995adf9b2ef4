"""``CAMByChannel``: CAMs whose terms may be had channel by channel, before they are added up."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from attribution.inputs.inputs import Inputs
from attribution.technique import Maps
from attribution.techniques.cam.family import CAM
from attribution.techniques.parameters import choice


@dataclass(frozen=True, kw_only=True)
class CAMByChannel(CAM):
    """A CAM that is a sum over the layer's channels, or its terms: (N, T, D, *places), which add up to the map.

    Args:
        channels: ``"sum"``, or ``"none"``, which keeps them. The ReLU then takes each channel by itself, so that the
            terms add up to the map with ``relu=False`` only. Figures draw their sum.
    """

    channels: Literal["sum", "none"] = "sum"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "channels", choice(type(self).__name__, "channels", self.channels, ("sum", "none")))

    @property
    def by_channel(self) -> bool:
        """Whether the channels are kept."""
        return self.channels == "none"

    def finish(self, raw: Maps, inputs: Inputs) -> Maps:
        """ReLU, then upsampling to the places of the inputs, of each channel by itself where they are kept."""
        if self.channels == "sum":
            return super().finish(raw, inputs)
        finished = super().finish({layer: map_.flatten(1, 2) for layer, map_ in raw.items()}, inputs)
        return {layer: map_.unflatten(1, raw[layer].shape[1:3]) for layer, map_ in finished.items()}

    def drawn(self, maps: Mapping[str, Tensor]) -> tuple[Maps, str]:
        """Channels that are kept are added up."""
        if not self.by_channel:
            return super().drawn(maps)
        return {layer: map_.sum(dim=2) for layer, map_ in maps.items()}, "sum over channels"
