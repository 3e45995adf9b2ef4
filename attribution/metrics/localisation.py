"""Where a map's values lie with respect to a mask: pointing game, mass and rank. No forward is made."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from attribution.errors import InputError, NonFiniteError
from attribution.metrics.metric import Better, Case, Metric, over_places


@dataclass(frozen=True, eq=False)
class Localisation(Metric):
    """A map held against a mask of each photo.

    Args:
        masks: (photos, *places), True where the object is; of the whole data set, in its order, on any device.

    Raises:
        InputError: They are no such masks. When run: there are none for these photos, or one is empty.
        NonFiniteError: When run: the map holds NaN or infinity, which points nowhere.
    """

    masks: Any

    better: ClassVar[Better] = "higher"

    def __post_init__(self) -> None:
        masks = torch.as_tensor(self.masks)
        if masks.ndim < 2 or masks.is_floating_point() or masks.is_complex():
            raise InputError(
                f"{type(self).__name__}.masks are {masks.dtype} of shape {tuple(masks.shape)}; give bools "
                "(photos, *places)"
            )
        object.__setattr__(self, "masks", masks.bool())

    def measure(self, case: Case) -> Mapping[str, Tensor]:
        """(N, T)."""
        map_ = over_places(case.map.detach(), case.inputs)
        if map_.ndim == self.masks.ndim + 2:
            map_ = map_.sum(dim=2)
        if not bool(torch.isfinite(map_).all()):
            raise NonFiniteError("the map holds NaN or infinity, and such a map points nowhere")
        masks = self.masks[case.first : case.first + len(map_)].to(map_.device)
        if masks.shape != (len(map_), *map_.shape[2:]):
            raise InputError(
                f"{type(self).__name__}.masks have shape {tuple(self.masks.shape)}; photos {case.first} to "
                f"{case.first + len(map_) - 1} have places {tuple(map_.shape[2:])}"
            )
        masks = masks.flatten(1)
        if not bool(masks.any(dim=1).all()):
            empty = case.first + int((~masks.any(dim=1)).nonzero()[0])
            raise InputError(f"the mask of photo {empty} is empty; leave such photos out")
        return {"": self.of(map_.flatten(2).double(), masks[:, None])}

    @abstractmethod
    def of(self, map_: Tensor, mask: Tensor) -> Tensor:
        """(N, T), of maps (N, T, n) and masks (N, 1, n)."""


class PointingGame(Localisation):
    """1 where the map's largest value lies in the mask, else 0; of several largest places the part that lies there.

    Source: J. Zhang et al., *Top-down Neural Attention by Excitation Backprop*, ECCV 2016, section 4.2. Departs from
    the paper: no tolerance of 15 pixels; grow the mask for one. A tie is what chance would point at.
    """

    name: ClassVar[str] = "pointing_game"

    def of(self, map_: Tensor, mask: Tensor) -> Tensor:
        """The part of the largest places in the mask."""
        top = map_ == map_.amax(dim=2, keepdim=True)
        return (top & mask).sum(dim=2).double() / top.sum(dim=2)


class MassInMask(Localisation):
    """Σ of positive values in the mask / Σ of positive values; 0 where there is none.

    Source: L. Arras, A. Osman, W. Samek, *CLEVR-XAI*, Information Fusion 81, 2022, section 3 ("relevance mass
    accuracy").
    """

    name: ClassVar[str] = "mass_in_mask"

    def of(self, map_: Tensor, mask: Tensor) -> Tensor:
        """The part of the positive mass."""
        mass = map_.clamp(min=0)
        whole = mass.sum(dim=2)
        return torch.where(whole > 0, (mass * mask).sum(dim=2) / whole, torch.zeros_like(whole))


class RankInMask(Localisation):
    """Of the K largest places, K being the size of the mask, the part that lies in it; equal values count by chance.

    Source: as `MassInMask` ("relevance rank accuracy").
    """

    name: ClassVar[str] = "rank_in_mask"

    def of(self, map_: Tensor, mask: Tensor) -> Tensor:
        """The part of the first K places."""
        size = mask.sum(dim=2).expand(map_.shape[:2])
        last = map_.sort(dim=2, descending=True).values.gather(2, size[..., None] - 1)
        above, level = map_ > last, map_ == last
        sure = (above & mask).sum(dim=2).double()
        chance = (size - above.sum(dim=2)) * (level & mask).sum(dim=2) / level.sum(dim=2)
        return (sure + chance) / size
