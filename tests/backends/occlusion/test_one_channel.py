"""Convolutions of one channel: torch misreads them as soon as input or weights have the strides of channels last."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attribution_hooks.incremental import steps
from tests.conftest import noise

CASES = [
    (31, (3, 3), 1, (2, 2)),
    (25, (9, 6), 2, (3, 5)),
    (4, (7, 3), 1, (4, 3)),
    (15, (8, 4), 1, (5, 3)),
    (22, (11, 5), 1, (5, 5)),
    (2, (12, 3), 2, (5, 3)),
]
"""Tiles, their size, output channels and kernel: off by 1 to 10²⁰ where torch misreads them."""


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("stride", [(1, 2), (1, 3), (2, 1)])
@pytest.mark.parametrize(("tiles", "size", "channels", "kernel"), CASES)
def test_tiles_of_one_channel(
    tiles: int, size: tuple[int, int], channels: int, kernel: tuple[int, int], stride: tuple[int, int], fold: bool
) -> None:
    module = nn.Conv2d(1, channels, kernel, stride=stride).requires_grad_(False)
    module.weight.copy_(noise(*module.weight.shape))
    scale, bias = noise(channels, seed=1), noise(channels, seed=2)
    step = steps.convolution(0, module, size, (scale, bias) if fold else None)
    assert step is not None
    x = noise(tiles, *size, 1, seed=3)
    weight = module.weight * scale.view(-1, 1, 1, 1) if fold else module.weight
    added = bias if fold or module.bias is None else module.bias
    exact = F.conv2d(x.permute(0, 3, 1, 2).double(), weight.double(), added.double(), stride)
    for given in (steps.channels_first(x), x.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)):
        assert (step.whole(given) - exact).abs().max() < 1e-4
