"""Networks that end with a convolution, and networks that do something around its call."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "plain": {"kernel_size": 3, "padding": 1},
    "no padding, no bias": {"kernel_size": (3, 2), "bias": False},
    "stride that leaves a rest": {"kernel_size": 3, "stride": (2, 3)},
    "dilation": {"kernel_size": 3, "dilation": 2, "padding": "same"},
    "groups": {"kernel_size": 3, "groups": 2},
    "reflected border": {"kernel_size": 3, "padding": 2, "padding_mode": "reflect"},
    "circular border": {"kernel_size": 3, "padding": 1, "padding_mode": "circular"},
    "1 × 1": {"kernel_size": 1},
}


def net(**convolution: Any) -> nn.Sequential:
    torch.manual_seed(3)
    last = nn.Conv2d(6, 4, **convolution)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), last, nn.ReLU()).eval()


class Around(nn.Module):
    """A network that does something around the call of its last convolution."""

    def __init__(self, call: Callable[["Around", Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 5)
        self.call = call
        source = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=source) / 3)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(F.relu(self.call(self, F.relu(self.stem(x)))).mean((2, 3)))
        return logits


def _standardised(net: Around, x: Tensor) -> Tensor:
    weight = net.conv.weight - net.conv.weight.mean((1, 2, 3), keepdim=True)
    return torch.func.functional_call(net.conv, {"weight": weight}, (x,))  # type: ignore[no-any-return]


def _conditional(net: Around, x: Tensor) -> Tensor:
    weight = net.conv.weight * x.mean()
    return torch.func.functional_call(net.conv, {"weight": weight}, (x,))  # type: ignore[no-any-return]


def _swapped(net: Around, x: Tensor) -> Tensor:
    before = net.conv.weight.data
    net.conv.weight.data = 2 * before
    try:
        return net.conv(x)  # type: ignore[no-any-return]
    finally:
        net.conv.weight.data = before


def _coarse(net: Around, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return net.conv(x).float()  # type: ignore[no-any-return]


def _folded(net: Around, x: Tensor) -> Tensor:
    return net.conv(torch.cat([x, -x]))[: len(x)]  # type: ignore[no-any-return]


AROUND = {
    "other weights": _standardised,
    "weights of the input": _conditional,
    "swapped weights": _swapped,
    "autocast of its own": _coarse,
    "other batch": _folded,
}
