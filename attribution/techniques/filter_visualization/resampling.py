"""``grid_sample`` with a gradient that comes out the same each time, also on an accelerator."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


def resampled(images: Tensor, grid: Tensor) -> Tensor:
    """Bilinear, mirrored at the border: ``grid_sample`` of (B, C, H, W) at (B, H', W', 2); differentiable in images.

    Torch's own backward adds up in whatever order threads come on an accelerator, and refuses to where deterministic
    algorithms are asked for. There the same sum is taken in a fixed order; on a CPU torch's own always is.
    """
    if images.device.type != "cpu" and torch.are_deterministic_algorithms_enabled():
        moved: Tensor = Resampling.apply(images, grid)
        return moved
    return _sampled(images, grid)


class Resampling(torch.autograd.Function):
    """`resampled` whose backward adds up by `index_put_`, which sorts what it adds."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, grid: Tensor) -> Tensor:
        """(B, C, H, W) and (B, H', W', 2) → (B, C, H', W')."""
        ctx.save_for_backward(grid)
        ctx.form = images.shape
        return _sampled(images, grid)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Each value goes back to the four pixels that it came from, by their weights."""
        (grid,), (images, channels, height, width) = ctx.saved_tensors, ctx.form
        left, right, x = _between(grid[..., 0], width)
        top, bottom, y = _between(grid[..., 1], height)
        first = torch.arange(images, device=grid.device)[:, None, None] * height
        rows, columns = (first + top, first + bottom), (left, right)
        places = torch.stack([row * width + column for row in rows for column in columns])
        weights = torch.stack([v * u for v in (1 - y, y) for u in (1 - x, x)])
        values = weights[..., None] * gradient.movedim(1, -1)
        pixels = gradient.new_zeros(images * height * width, channels)
        pixels.index_put_((places.flatten(),), values.flatten(0, -2), accumulate=True)
        return pixels.view(images, height, width, channels).movedim(-1, 1).contiguous(), None


def _sampled(images: Tensor, grid: Tensor) -> Tensor:
    return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def _between(places: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """The two pixels between which a place from −1 to 1 lies, and its distance from the first; as ``grid_sample``."""
    beyond = ((places + 1) * length / 2).abs()  # from the outer edge of the first pixel
    turns, rest = (beyond / length).floor(), beyond.fmod(length)
    inside = torch.where(turns % 2 == 0, rest, length - rest) - 0.5
    inside = inside.clamp(0, length - 1)
    first = inside.floor()
    return first.long(), (first + 1).clamp(max=length - 1).long(), inside - first
