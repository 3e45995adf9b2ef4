"""The layers whose outputs depend on a neighbourhood: what each computes on a tile, and where its neighbours are."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attribution.lowered.convolutions import pair, plain
from attribution.lowered.norms import activation, is_batch_norm, is_timm
from attribution.lowered.products import product

Pair = tuple[int, int]
Layout = Literal["nchw", "nhwc"]


@dataclass(frozen=True)
class Step:
    """One layer on tiles.

    Attributes:
        inputs: Positions of the steps that it reads.
        call: On one tile per input, whose borders hold all that is read; no padding.
        whole: The same on whole maps, with padding.
        kernel, stride, dilation, padding: As in `plan.Op`.
        fill: What lies outside the map: 0, or -inf for max-pools.
        macs: Multiply-accumulates per output pixel.
        layout: Of its output.
        inplace: ``call`` that may overwrite its first input, where there is one.
        view: Whether the output is the input's memory.
    """

    inputs: tuple[int, ...]
    call: Callable[..., Tensor]
    whole: Callable[..., Tensor]
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: Pair = (0, 0)
    fill: float = 0.0
    macs: int = 0
    layout: Layout = "nchw"
    inplace: Callable[..., Tensor] | None = None
    view: bool = False


def channels_first(maps: Tensor) -> Tensor:
    """(B, h, w, D) as (B, D, h, w), on the same memory; of one channel with strides that cannot be read in two ways.

    Torch's convolutions misread a batch of one channel whose stride is 1: with a stride of their own along the width
    they read beside the image.
    """
    found = maps.permute(0, 3, 1, 2)
    return found if found.shape[1] > 1 else plain(found)


def pointwise(
    source: int, call: Callable[[Tensor], Tensor], layout: Layout, inplace: Callable[[Tensor], Tensor] | None = None
) -> Step:
    """A layer that works pixel by pixel."""
    return Step((source,), call, call, layout=layout, inplace=inplace)


def convolution(
    source: int, module: nn.Conv2d, size: Pair, fold: tuple[Tensor, Tensor] | None, *, products: bool = False
) -> Step | None:
    """A convolution, with the batch norm that follows folded into its weights; ``None`` where padding is no zeros.

    With ``products`` it is one of matrices where that is faster.
    """
    if module.padding_mode != "zeros":
        return None
    kernel, stride, dilation = pair(module.kernel_size), pair(module.stride), pair(module.dilation)
    before, after = _padding(module, size)
    weight, bias = module.weight.detach(), None if module.bias is None else module.bias.detach()
    if fold is None:
        weight = weight.contiguous(memory_format=torch.channels_last)
    else:
        scale, bias = fold
        last = torch.empty_like(weight, memory_format=torch.channels_last)
        weight = torch.mul(weight, scale.view(-1, 1, 1, 1), out=last)
    groups = module.groups
    if groups == 1:
        weight = plain(weight)  # either of both makes torch read the other as channels last

    steps = _steps(kernel, stride)

    def call(x: Tensor) -> Tensor:
        return F.conv2d(plain(x), weight, bias, steps, 0, dilation, groups)

    def whole(x: Tensor) -> Tensor:
        x = plain(x)
        if before == after:
            return F.conv2d(x, weight, bias, stride, before, dilation, groups)
        x = F.pad(x, (before[1], after[1], before[0], after[0]))
        return F.conv2d(x, weight, bias, stride, 0, dilation, groups)

    step = Step(
        (source,), call, whole, kernel=kernel, stride=stride, dilation=dilation, padding=before, macs=weight.numel()
    )
    if products and (found := product(weight, bias, steps, dilation, groups)) is not None:
        strided = found if steps == stride else product(weight, bias, stride, dilation, groups)
        assert strided is not None
        return replace(step, call=lambda x: found(x, (0, 0), (0, 0)), whole=lambda x: strided(x, before, after))
    return step


def pooling(
    source: int,
    kind: Literal["max", "avg"],
    size: Pair,
    *,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Step | None:
    """A pool; ``None`` for an average whose divisor differs from place to place."""
    kernel, padding, dilation = pair(kernel), pair(padding), pair(dilation)
    stride = kernel if stride is None or stride == [] else pair(stride)
    common = {"kernel": kernel, "stride": stride, "padding": padding}
    steps = _steps(kernel, stride)
    if kind == "max":
        return Step(
            (source,),
            lambda x: F.max_pool2d(x, kernel, steps, 0, dilation),
            lambda x: F.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode),
            dilation=dilation,
            fill=-torch.inf,
            **common,
        )
    overhang = ceil_mode and any((n + 2 * p - k) % s for n, p, k, s in zip(size, padding, kernel, stride, strict=True))
    if divisor_override is None and (overhang or (padding != (0, 0) and not count_include_pad)):
        return None
    return Step(
        (source,),
        lambda x: F.avg_pool2d(x, kernel, steps, 0, divisor_override=divisor_override),
        lambda x: F.avg_pool2d(x, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override),
        **common,
    )


def padded(source: int, before: Pair, after: Pair, value: float) -> Step:
    """Constant padding: a gather, and nothing to compute."""
    sides = (before[1], after[1], before[0], after[0])
    return Step((source,), lambda x: x, lambda x: F.pad(x, sides, value=value), padding=before, fill=value, view=True)


def _steps(kernel: Pair, stride: Pair) -> Pair:
    """Strides on a tile: along an axis where the kernel is 1, only what is read was gathered."""
    down, right = (1 if k == 1 else s for k, s in zip(kernel, stride, strict=True))
    return down, right


def _padding(module: nn.Conv2d, size: Pair) -> tuple[Pair, Pair]:
    """(above, left), (below, right)."""
    halo = [d * (k - 1) for k, d in zip(pair(module.kernel_size), pair(module.dilation), strict=True)]
    if is_timm(module, "Conv2dSame"):
        strides = pair(module.stride)
        total = [max((-(-n // s) - 1) * s + h + 1 - n, 0) for n, s, h in zip(size, strides, halo, strict=True)]
    elif module.padding == "same":
        total = halo
    else:
        sides = (0, 0) if module.padding == "valid" else pair(module.padding)
        return sides, sides
    before = (total[0] // 2, total[1] // 2)
    return before, (total[0] - before[0], total[1] - before[1])


def after_norm(module: nn.Module, source: int) -> Step | int:
    """What is left of a batch norm that was folded: nothing, or the activation of timm's fused form."""
    act = getattr(module, "act", None)
    found = activation(act) if isinstance(act, nn.Module) else None
    if found is None:
        return source
    return pointwise(source, found[0], "nchw", found[1])


def of_module(
    module: nn.Module,
    source: int,
    layout: Layout,
    x: Tensor,
    fold: tuple[Tensor, Tensor] | None = None,
    *,
    products: bool = False,
) -> Step | int | None:
    """A layer as a step, its source where it changes nothing, or ``None`` where it is not known to be local.

    Args:
        module: Eval mode, without hooks.
        source: The step that it reads.
        layout: Of its input.
        x: Its input for whole images; only its shape is used.
        fold: By what a batch norm that follows multiplies the weights of a convolution, and the bias afterwards.
        products: Whether a convolution may be one of matrices.
    """
    kind = type(module)
    it: Any = module
    if kind is nn.Identity or kind.__module__ == nn.Dropout.__module__ or _from_a_library(kind, *_STILL):
        return None if module.training else source
    if pair := activation(module):
        if kind is nn.PReLU and layout != "nchw":
            return None
        return pointwise(source, pair[0], layout, pair[1])
    if layout == "nhwc":
        return _of_channels_last(module, source, x)
    size = (x.shape[2], x.shape[3])
    if kind is nn.Conv2d or is_timm(module, "Conv2dSame"):
        return convolution(source, it, size, fold, products=products)
    if is_batch_norm(module):
        return pointwise(source, module.forward, layout)
    if kind is nn.MaxPool2d and not it.return_indices:
        return pooling(
            source, "max", size, kernel=it.kernel_size, stride=it.stride, padding=it.padding, dilation=it.dilation,
            ceil_mode=it.ceil_mode,
        )  # fmt: skip
    if kind is nn.AvgPool2d:
        return pooling(
            source, "avg", size, kernel=it.kernel_size, stride=it.stride, padding=it.padding, ceil_mode=it.ceil_mode,
            count_include_pad=it.count_include_pad, divisor_override=it.divisor_override,
        )  # fmt: skip
    if kind in (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d) and not getattr(it, "return_indices", False):
        return source if it.output_size in (size, list(size), size[0] if size[0] == size[1] else size) else None
    if kind is nn.ZeroPad2d:
        left, right, top, bottom = it.padding
        return padded(source, (top, left), (bottom, right), 0.0) if min(it.padding) >= 0 else None
    if _is_channel_norm(module):
        return pointwise(source, module.forward, layout)
    if _permutation(module) == (0, 2, 3, 1):
        return _permuted(source, "nhwc", (0, 2, 3, 1))
    return None


_STILL = frozenset({"StochasticDepth", "DropPath"})


def _from_a_library(kind: type, *names: str) -> bool:
    """A class of that name by a user may do anything, and the clean image need not show it."""
    return kind.__name__ in names and kind.__module__.startswith(("torchvision.", "timm."))


def _of_channels_last(module: nn.Module, source: int, x: Tensor) -> Step | None:
    if type(module) is nn.LayerNorm and tuple(module.normalized_shape) == x.shape[-1:]:
        return pointwise(source, module.forward, "nhwc")
    if type(module) is nn.Linear:
        return Step((source,), module.forward, module.forward, layout="nhwc", macs=module.weight.numel())
    if _permutation(module) == (0, 3, 1, 2):
        return _permuted(source, "nchw", (0, 3, 1, 2))
    return None


def _permuted(source: int, layout: Layout, order: tuple[int, ...]) -> Step:
    def call(x: Tensor) -> Tensor:
        return x.permute(order)

    return Step((source,), call, call, layout=layout, view=True)


def _permutation(module: nn.Module) -> tuple[int, ...] | None:
    return tuple(module.dims) if type(module).__name__ == "Permute" and isinstance(module.dims, list | tuple) else None


def _is_channel_norm(module: nn.Module) -> bool:
    """A layer norm over the channels of each pixel, as in ConvNeXt."""
    return _from_a_library(type(module), "LayerNorm2d") and isinstance(module, nn.LayerNorm)
