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

    def draws(self, seed: int, channels: Sequence[int], steps: int) -> Tensor:
        """Uniform numbers in [−1, 1): (K, steps, 4), those of a channel from its own generator."""
        rows = [
            2 * torch.rand(steps, 4, generator=generator(seed, channel, -1), dtype=torch.float32, device="cpu") - 1
            for channel in channels
        ]
        return torch.stack(rows)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Move images (B, C, H, W) as the draws (B, 4) say; differentiable."""
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
