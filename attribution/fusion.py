"""Maps of several layers as one."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from attribution.errors import InputError

FuseRule = Literal["mean", "max", "product"]

_RULES = ("mean", "max", "product")


def fused(maps: Mapping[str, Tensor], rule: FuseRule = "mean", *, scaled: bool = True) -> Tensor:
    """One map (N, T, *places) of several.

    Args:
        maps: By layer, (N, T, *places), all of one shape.
        rule: What is taken of the layers at each place.
        scaled: Divide each map of an image and target by its largest |value| first, and leave zeros as they are.

    Raises:
        InputError: The rule is none of the three, there are fewer than two maps, or they have several shapes.
    """
    if rule not in _RULES:
        raise InputError(f"rule is {rule!r}; give {', '.join(map(repr, _RULES))}")
    if len(maps) < 2:
        raise InputError(f"fusing needs maps of several layers; found {list(maps)}: give the technique more layers")
    shapes = {tuple(map_.shape) for map_ in maps.values()}
    if len(shapes) > 1:
        raise InputError(f"maps of one size can be fused; found {sorted(shapes)}: leave upsample=True")
    parts = torch.stack([_by_its_largest(map_) if scaled else map_ for map_ in maps.values()])
    if rule == "mean":
        return parts.mean(dim=0)
    return parts.amax(dim=0) if rule == "max" else parts.prod(dim=0)


def _by_its_largest(map_: Tensor) -> Tensor:
    size = map_.abs().flatten(2).amax(dim=2) if map_.ndim > 2 else map_.abs()
    size = size.reshape(*size.shape, *[1] * (map_.ndim - 2))
    return torch.where(size > 0, map_ / size, 0.0)
