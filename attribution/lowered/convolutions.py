"""``Packed``: a convolution of images whose weights lie as oneDNN wants them."""

from typing import Any

import torch
from torch import Tensor, nn

from attribution.lowered import products
from attribution.lowered.folding import Fold
from attribution.running.torch_internals import pack_convolution, packed_convolution

Pair = tuple[int, int]


def can_pack() -> bool:
    """Whether this torch has oneDNN, and nobody turned it off."""
    return bool(pack_convolution and packed_convolution and torch.backends.mkldnn.is_available()
                and torch.backends.mkldnn.enabled)  # fmt: skip


def plain(x: Tensor) -> Tensor:
    """The same (B, C, h, w), of one channel with the strides of a contiguous tensor.

    Torch's convolutions misread one channel with the strides of channels last; see
    ``tests/backends/occlusion/test_one_channel.py``.
    """
    return x.squeeze(1).unsqueeze(1) if x.shape[1] == 1 else x


class Packed:
    """F.conv2d(x, weight, bias, …), in float32 on a CPU, to channels last; a wide one by `products.of_images`.

    Activations that stand behind are left to torch, but for SiLU: the others of oneDNN turn NaN into a number.

    Args:
        weight: (K, C / groups, h, w).
        bias: (K,).
        stride: Down and across, as all of them.
        padding: Zeros on either side.
        dilation: Of the kernel.
        groups: Of channels.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, dilation: Pair, groups: int
    ) -> None:
        assert pack_convolution is not None  # see `can_pack`
        self.channels = weight.shape[1] * groups
        self._kernel = (weight.shape[0], weight.shape[2], weight.shape[3])
        self._bias, self._padding = bias, padding
        self._how = ([*padding], [*stride], [*dilation], groups)
        self._weight = pack_convolution(weight.contiguous().to_mkldnn(), *self._how)
        self._product = products.of_images(weight, bias, stride, dilation, groups)

    @classmethod
    def of(cls, module: nn.Conv2d, fold: Fold | None = None) -> "Packed":
        """A module's, with the batch norm that follows folded in; the module is one that `packable` is true of."""
        weight, bias = module.weight.detach(), None if module.bias is None else module.bias.detach().clone()
        if fold is not None:
            weight, bias = weight * fold[0].view(-1, 1, 1, 1), fold[1].clone()
        padding = paddings(module)
        assert padding is not None
        return cls(weight, bias, pair(module.stride), padding, pair(module.dilation), module.groups)

    def __call__(self, x: Tensor, *, silu: bool = False) -> Tensor:
        """(B, C, H, W) → (B, K, h, w).

        Raises:
            ValueError: It is no such tensor, of which the kernel would read what is not there.
        """
        if x.ndim != 4 or x.shape[1] != self.channels or x.dtype != torch.float32 or x.layout != torch.strided:
            raise ValueError(f"a convolution of {self.channels} channels is given {tuple(x.shape)}, {x.dtype}")
        if self._product is not None and not silu:
            return self._product(x, self._padding, self._padding)
        found: Tensor = packed_convolution(  # type: ignore[misc]
            plain(x), self._weight, self._bias, *self._how, "swish" if silu else "none", [], ""
        )
        return found

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """The same and ``other``, of any shape that it can be added to."""
        if other.shape != self._shape(x) or other.dtype != torch.float32 or other.layout != torch.strided:
            return self(x) + other
        found: Tensor = packed_convolution.binary(  # type: ignore[union-attr]
            plain(x), other, self._weight, self._bias, *self._how, "add", 1.0, None, [], ""
        )
        return found

    def _shape(self, x: Tensor) -> tuple[int, ...] | None:
        if x.ndim != 4 or x.shape[1] != self.channels or x.dtype != torch.float32 or x.layout != torch.strided:
            return None
        padding, stride, dilation, _ = self._how
        sides = (
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, p, d, k, s in zip(x.shape[2:], padding, dilation, self._kernel[1:], stride, strict=True)
        )
        return (len(x), self._kernel[0], *sides)


def packable(module: nn.Module | None) -> bool:
    """Whether a module is a convolution as torch's class has it, of float32 on a CPU, with the same zeros all round."""
    if type(module) is not nn.Conv2d or module.padding_mode != "zeros" or paddings(module) is None:
        return False
    held: list[Any] = [module.weight] if module.bias is None else [module.weight, module.bias]
    return all(
        type(tensor) in (nn.Parameter, Tensor)
        and tensor.dtype == torch.float32
        and tensor.device.type == "cpu"
        and tensor.layout == torch.strided
        for tensor in held
    )


def paddings(module: nn.Conv2d) -> Pair | None:
    """Zeros above and to the left, where as many are below and to the right; else ``None``."""
    if isinstance(module.padding, str):
        if module.padding == "valid":
            return 0, 0
        halo = [d * (k - 1) for k, d in zip(pair(module.kernel_size), pair(module.dilation), strict=True)]
        return (halo[0] // 2, halo[1] // 2) if not any(each % 2 for each in halo) else None
    return pair(module.padding)


def pair(value: Any) -> Pair:
    """Down and across."""
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[-1]))
