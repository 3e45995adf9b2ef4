"""A loaded model with another size of its input, another normalisation, or other class names."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from attribution.class_names import ClassNames, every
from attribution.errors import InputError
from attribution.zoo.loaded import LoadedModel

if TYPE_CHECKING:
    from PIL import Image

_SIDE = 16_384


@dataclass(frozen=True)
class Cover:
    """Scale a photo until it just covers ``size``, bilinearly, and cut out the middle; then normalise.

    Args:
        size: (height, width) of the input.
        mean: Per channel, for values in [0, 1].
        std: Likewise; the input is ``(value − mean) / std``.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, photo: "Image.Image") -> Tensor:
        """(C, H, W)."""
        from PIL import Image, ImageOps

        colours = photo.convert("L" if len(self.mean) == 1 else "RGB")
        fitted = ImageOps.fit(colours, self.size[::-1], Image.Resampling.BILINEAR)
        values = torch.from_numpy(np.array(fitted, dtype=np.float32)).view(*self.size, len(self.mean)) / 255
        mean, std = (torch.tensor(each, device="cpu") for each in (self.mean, self.std))
        return ((values - mean) / std).movedim(-1, 0).contiguous()


@dataclass(frozen=True)
class Renormalised:
    """A transform with another normalisation at its end.

    Args:
        transform: What is scaled and cut as before.
        before: Its (mean, std).
        after: The (mean, std) in their place.
    """

    transform: "Callable[[Image.Image], Tensor]"
    before: tuple[tuple[float, ...], tuple[float, ...]]
    after: tuple[tuple[float, ...], tuple[float, ...]]

    def __call__(self, photo: "Image.Image") -> Tensor:
        """(C, H, W)."""
        old_mean, old_std, mean, std = (
            torch.tensor(each, device="cpu").view(-1, 1, 1) for each in (*self.before, *self.after)
        )
        return (self.transform(photo) * old_std + old_mean - mean) / std


def adapted(
    loaded: LoadedModel,
    *,
    size: tuple[int, int] | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    labels: ClassNames | None = None,
) -> LoadedModel:
    """The same network, shown photos in another way.

    Args:
        loaded: The model with its own transform and class names.
        size: (height, width) that a photo is scaled to cover and then cut to; ``None``: as its transform does.
        mean: Per channel, for values in [0, 1]; ``None``: its own.
        std: Likewise.
        labels: Class names; ``None``: its own.

    Raises:
        InputError: A size below 1 or above 16,384 pixels, a std that is not above 0, numbers that are not finite, or
            of another count than the channels.
    """
    new_mean, new_std = mean or loaded.mean, std or loaded.std
    channels = len(loaded.mean) if None in (mean, std) else len(new_mean)
    for name, values in (("mean", new_mean), ("std", new_std)):
        if len(values) != channels or channels not in (1, 3):
            wanted = f"{channels}, one a channel" if channels in (1, 3) else "1 or 3, one a channel"
            raise InputError(f"{name} has {len(values)} numbers; expected {wanted}")
        if not all(np.isfinite(values)) or (name == "std" and min(values) <= 0):
            raise InputError(f"{name} is {values}; expected finite numbers{' above 0' * (name == 'std')}")
    if size is not None and not all(1 <= side <= _SIDE for side in size):
        raise InputError(f"a size of {size[0]} × {size[1]} pixels; expected 1 to {_SIDE} each way")
    transform = loaded.transform
    if size is not None:
        transform = Cover(size, new_mean, new_std)
    elif (new_mean, new_std) != (loaded.mean, loaded.std):
        if channels != len(loaded.mean):
            raise InputError(
                f"mean and std are of {channels} channels, the transform of {loaded.name} makes {len(loaded.mean)}; "
                "give a size as well, which replaces it"
            )
        transform = Renormalised(loaded.transform, (loaded.mean, loaded.std), (new_mean, new_std))
    names = loaded.labels if labels is None else every(labels)
    return replace(loaded, transform=transform, mean=new_mean, std=new_std, labels=names)
