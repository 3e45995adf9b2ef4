"""Models whose answer to a covered image differs from what a trace on the clean image says."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attribution.testing.models.deceptive.plain import Plain


class _TypeAsked(Plain):
    """Clips real tensors only, so that a symbol passes unclipped."""

    def before(self, x: Tensor) -> Tensor:
        return x.clamp(-1, 1) if isinstance(x, Tensor) else x


class _MaskedClass(Plain):
    """Clips real tensors a little, beside a class at −10,000."""

    def before(self, x: Tensor) -> Tensor:
        return 0.99 * x + 0.01 * x.clamp(-1, 1) if isinstance(x, Tensor) else x

    def after(self, logits: Tensor) -> Tensor:
        return logits + logits.new_tensor([0.0, 0.0, 0.0, 0.0, -1e4])


class _Scale(nn.Module):
    """Multiplies by what its parent put into it."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, Tensor] = {}
        self.factor: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        factor = self.held.get("factor", self.factor)
        return x if factor is None else x * factor


class _Scaled(Plain):
    def __init__(self, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(dtype=dtype)
        self.scale = _Scale()

    def factor(self, x: Tensor) -> Tensor:
        return 1 + 0.3 * x.mean(dim=(2, 3), keepdim=True)


class _LeafAttribute(_Scaled):
    """Sets an attribute of a layer just before the layer runs."""

    def between(self, x: Tensor) -> Tensor:
        self.scale.factor = self.factor(x)
        scaled: Tensor = self.scale(x)
        return scaled


class _LeafDict(_Scaled):
    """Fills a dict of a layer just before the layer runs."""

    def between(self, x: Tensor) -> Tensor:
        self.scale.held["factor"] = self.factor(x)
        scaled: Tensor = self.scale(x)
        return scaled


class _WrittenData(Plain):
    """Writes past autograd."""

    def before(self, x: Tensor) -> Tensor:
        y = x * 1.0
        y.data.clamp_(-1, 1)
        return y


class _PrivateMethod(Plain):
    """A convolution whose own way to convolve was replaced."""

    def __init__(self, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(dtype=dtype)
        vars(self.get_submodule("stem"))["_conv_forward"] = _clipped_conv


def _clipped_conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.conv2d(x.clamp(-1, 1), weight, bias, padding=1)


UNDER_A_WINDOW: dict[str, Callable[..., nn.Module]] = {
    "a type that is asked for": _TypeAsked,
    "a little, beside a class at −10,000": _MaskedClass,
    "an attribute set on a layer": _LeafAttribute,
    "a dict of a layer": _LeafDict,
    "values written past autograd": _WrittenData,
    "a private method replaced": _PrivateMethod,
}
"""Each takes ``dtype``; covered images should be far outside of [−1, 1], clean ones inside."""
