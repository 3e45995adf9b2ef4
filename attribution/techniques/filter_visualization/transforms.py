"""Small random movements of the images, so that only patterns that survive them are found."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from attribution.techniques.filter_visualization.resampling import resampled


def generator(seed: int, channel: int, attempt: int = 0) -> torch.Generator:
    """Random numbers of one channel alone, whatever else is drawn."""
    return torch.Generator().manual_seed((seed * 1_000_003 + channel + attempt * 7_368_787_000_003) % 2**63)


@dataclass(frozen=True)
class Transforms:
    """Each image by itself: shifted by whole pixels, scaled and rotated about its middle; mirrored at the border.

    Series (B, C, T) are shifted and scaled. The planes of volumes (B, C, D, H, W) are moved as images are, all alike,
    and shifted and scaled along D. Features (B, F) stay.

    Attributes:
        jitter: At most so many pixels in each direction.
        scale: By a factor of 1 − scale to 1 + scale.
        rotate: By at most so many degrees.
    """

    jitter: int
    scale: float
    rotate: float

    @property
    def idle(self) -> bool:
        """Whether nothing moves."""
        return not (self.jitter or self.scale or self.rotate)

    def draws(self, seed: int, channels: Sequence[int], steps: int, places: int = 2) -> Tensor:
        """Uniform numbers in [−1, 1): (K, steps, 4), those of a channel from its own generator; 5 for volumes."""
        rows = [
            2
            * torch.rand(
                steps, max(4, places + 2), generator=generator(seed, channel, -1), dtype=torch.float32, device="cpu"
            )
            - 1
            for channel in channels
        ]
        return torch.stack(rows)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Move images (B, C, *places) as the draws (B, 4 or 5) say; differentiable."""
        if images.ndim == 2:
            return images
        if images.ndim == 3:
            return self._along(images, draws[:, 1], draws[:, 3])
        if images.ndim == 5:
            planes = self._plane(images.flatten(1, 2), draws[:, :4]).unflatten(1, images.shape[1:3])
            lines = planes.movedim(2, -1)
            moved = self._along(lines.flatten(1, -2), draws[:, 1], draws[:, 4])
            volumes: Tensor = moved.unflatten(1, lines.shape[1:-1])
            return volumes.movedim(-1, 2)
        return self._plane(images, draws)

    def _along(self, lines: Tensor, zoom: Tensor, shift: Tensor) -> Tensor:
        """(B, C, T): scaled and shifted along T, as an image of one row."""
        still = torch.zeros_like(zoom)
        return self._plane(lines[:, :, None], torch.stack([still, zoom, still, shift], dim=1))[:, :, 0]

    def _plane(self, images: Tensor, draws: Tensor) -> Tensor:
        height, width = images.shape[2:]
        turn, zoom, down, right = draws.to(images.device, torch.float64).unbind(dim=1)
        angle, inverse = turn * math.radians(self.rotate), 1 / (1 + zoom * self.scale)
        cos, sin = angle.cos() * inverse, angle.sin() * inverse
        shift = [(part * self.jitter).round() * 2 / side for part, side in ((right, width), (down, height))]
        theta = torch.stack(
            [
                torch.stack([cos, -sin * height / width, shift[0]], dim=1),
                torch.stack([sin * width / height, cos, shift[1]], dim=1),
            ],
            dim=1,
        )
        grid = functional.affine_grid(theta.to(images.dtype), list(images.shape), align_corners=False)
        return resampled(images, grid)
