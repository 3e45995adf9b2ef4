"""Convolutions of many channels as products of matrices, in float32 on a CPU: torch's own take up to twice as long.

A convolution of oneDNN brings its weights into an order of its own in every call. Over few pixels of many channels,
as in late layers, that costs as much as the arithmetic. A product of matrices reads them as they lie.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attribution.running.precision import exact

Pair = tuple[int, int]
Product = Callable[[Tensor, Pair, Pair], Tensor]
"""Of images (B, C, H, W) and the zeros (above, left) and (below, right) of them: (B, K, h, w), in channels last."""

LARGE = 2**18
"""Weights from which on a convolution of single pixels is a product."""

WIDE = 256
"""Channels read and given from which on `Winograd` is faster; for fewer its own sums take what it saves."""

WIDEST = 512
"""Channels given from which on it is faster than a packed convolution of whole images, too."""

ROWS = 100
"""Blocks at once: fewer read the weights too often, more leave the cache between one sum and the next."""

FEWEST = 48
"""Blocks from which on reading the larger weights is worth it."""


def product(weight: Tensor, bias: Tensor | None, stride: Pair, dilation: Pair, groups: int) -> Product | None:
    """A convolution as products; ``None`` where torch's own is as fast, or would round otherwise."""
    if type(weight) is not Tensor or weight.dtype != torch.float32 or not exact(weight.device) or groups != 1:
        return None
    if tuple(weight.shape[2:]) == (1, 1):
        return _of_pixels(weight, bias, stride) if weight.numel() >= LARGE else None
    if _is_winograd(weight, stride, dilation, groups):
        return Winograd(weight, bias)
    return None


def of_images(weight: Tensor, bias: Tensor | None, stride: Pair, dilation: Pair, groups: int) -> Product | None:
    """A convolution of whole images likewise; ``None`` where a packed one is as fast."""
    if len(weight) < WIDEST or not exact(weight.device) or not _is_winograd(weight, stride, dilation, groups):
        return None
    return Winograd(weight, bias)


def held(modules: Iterable[nn.Module], *, outputs: int = 0) -> int:
    """Bytes of the weights that products of a model's convolutions hold beside its own.

    Args:
        modules: Of the model.
        outputs: Channels that a convolution gives at least: `WIDEST` for whole images.
    """
    return sum(
        module.weight.nbytes * 16 // 9
        for module in modules
        if isinstance(module, nn.Conv2d)
        and len(module.weight) >= outputs
        and _is_winograd(module.weight, module.stride, module.dilation, module.groups)
    )


def _is_winograd(weight: Tensor, stride: tuple[int, ...], dilation: tuple[int, ...], groups: int) -> bool:
    steps = {groups, *stride, *dilation}
    return tuple(weight.shape[2:]) == (3, 3) and steps == {1} and min(weight.shape[:2]) >= WIDE


def _of_pixels(weight: Tensor, bias: Tensor | None, stride: Pair) -> Product:
    rows, (down, right) = weight.view(weight.shape[:2]), stride

    def call(x: Tensor, before: Pair, after: Pair) -> Tensor:
        pixels = _padded(x, before, after)[:, ::down, ::right].contiguous()
        return F.linear(pixels, rows, bias).permute(0, 3, 1, 2)

    return call


class Winograd:
    """A convolution by kernels of 3 × 3, in blocks of 2 × 2 outputs: 16 products per channel in the place of 36.

    It is Winograd's F(2 × 2, 3 × 3) (Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016).
    The numbers are those of the convolution, in other sums. Those over channels are nine times as short, and rounding
    is less for it: 2e-6 beside 7e-6 for 512 channels of size 1.
    An infinity becomes NaN in its block, which a proof finds as the change that is largest.

    Args:
        weight: (K, C, 3, 3), float32.
        bias: (K,).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight, bias
        taps = weight.permute(2, 3, 1, 0).reshape(9, -1)
        self._wide = torch.mm(_kernels(), taps).view(16, weight.shape[1], weight.shape[0])

    def __call__(self, x: Tensor, before: Pair, after: Pair) -> Tensor:
        """As a `Product`."""
        pixels = _padded(x, before, after)
        images, height, width = pixels.shape[0], pixels.shape[1] - 2, pixels.shape[2] - 2
        down, across = (height + 1) // 2, (width + 1) // 2
        if images * down * across < FEWEST:
            return F.conv2d(pixels.permute(0, 3, 1, 2), self._weight, self._bias)
        if height % 2 or width % 2:
            pixels = F.pad(pixels, (0, 0, 0, width % 2, 0, height % 2))
        found = x.new_empty((images, 2 * down, 2 * across, len(self._weight)))
        at_once = max(1, ROWS // (down * across))
        for first in range(0, images, at_once):
            part = slice(first, first + at_once)
            self._blocks(pixels[part], found[part])
        return found[:, :height, :width].permute(0, 3, 1, 2)

    def _blocks(self, pixels: Tensor, out: Tensor) -> None:
        """Fill (n, 2 h, 2 w, K) from (n, 2 h + 2, 2 w + 2, C)."""
        images, height, width, outputs = out.shape
        down, across, channels = height // 2, width // 2, pixels.shape[3]
        rows = pixels.new_empty((4, images, down, pixels.shape[2], channels))
        wide = pixels.new_empty((4, 4, images, down, across, channels))
        _differences([pixels[:, i : i + height - 1 : 2] for i in range(4)], rows.unbind(0))
        _differences([rows[:, :, :, i : i + width - 1 : 2] for i in range(4)], wide.unbind(1))
        found = torch.bmm(wide.view(16, -1, channels), self._wide).view(4, 4, images, down, across, outputs)
        if self._bias is not None:
            found[1, 1] += self._bias  # every output of a block holds this one once
        _sums(found.unbind(0), found[0], found[1])
        for i in (0, 1):
            _sums(found[i].unbind(0), out[:, i::2, 0::2], out[:, i::2, 1::2])


def _kernels() -> Tensor:
    """(16, 9), what a kernel's taps are multiplied by."""
    along = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]], device="cpu")
    return torch.kron(along, along)


def _differences(x: Sequence[Tensor], out: Sequence[Tensor]) -> None:
    """Of four neighbours along one side."""
    torch.sub(x[0], x[2], out=out[0])
    torch.add(x[1], x[2], out=out[1])
    torch.sub(x[2], x[1], out=out[2])
    torch.sub(x[1], x[3], out=out[3])


def _sums(x: Sequence[Tensor], first: Tensor, second: Tensor) -> None:
    """Two outputs along one side, of four products, into which is written."""
    torch.add(x[0].add_(x[1]), x[2], out=first)
    torch.sub(x[1].sub_(x[2]), x[3], out=second)


def _padded(x: Tensor, before: Pair, after: Pair) -> Tensor:
    """(B, H, W, C), with zeros around."""
    pixels = x.permute(0, 2, 3, 1)
    if not any((*before, *after)):
        return pixels
    return F.pad(pixels, (0, 0, before[1], after[1], before[0], after[0]))
