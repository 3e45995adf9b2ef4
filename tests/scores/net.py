"""A small float64 network whose output takes any form, and Grad-CAM and occlusion of it in plain loops."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

SIZE = (8, 9)
WINDOW, STRIDE = 3, 2

Finish = Callable[[Tensor], Any]
Truth = Callable[[Any, int, Any], list[Tensor]]
"""(what the model returns for one image alone, its place in the batch, the same for the clean image) → T numbers."""


class Net(nn.Module):
    """``stem``, ``body``, and four maps (N, 4, 8, 9) of which ``finish`` makes the output."""

    def __init__(self, finish: Finish) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.body = nn.Conv2d(4, 5, 3, padding=1)
        self.maps = nn.Conv2d(5, 4, 1)
        self.finish = finish
        generator = torch.Generator().manual_seed(3)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 2
        self.eval()

    def forward(self, x: Tensor) -> Any:
        return self.finish(self.maps(self.body(self.stem(x).tanh()).tanh()))


def images(count: int) -> Tensor:
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def read(net: Net, x: Tensor, layer: str | None) -> Any:
    """The output, or that of a layer."""
    hidden = net.body(net.stem(x).tanh())
    return hidden if layer == "body" else net.finish(net.maps(hidden.tanh()))


def grad_cam(net: Net, inputs: Tensor, truth: Truth, layer: str = "body", of_layer: str | None = None) -> Tensor:
    """(N, T, h, w): one image at a time, one target at a time, channels summed one by one."""
    maps = []
    for n, image in enumerate(inputs):
        columns = []
        clean = read(net, image[None], of_layer)
        for t in range(len(truth(clean, n, clean))):
            activation = net.stem(image[None])
            if layer == "body":
                activation = net.body(activation.tanh())
            activation = activation.detach().requires_grad_()
            hidden = activation if layer == "body" else net.body(activation.tanh())
            output = hidden if of_layer == "body" else net.finish(net.maps(hidden.tanh()))
            (gradient,) = torch.autograd.grad(truth(output, n, clean)[t], activation)
            cam = torch.zeros(activation.shape[2:], dtype=torch.float64)
            for k in range(activation.shape[1]):
                cam += gradient[0, k].mean() * activation[0, k].detach()
            columns.append(cam)
        maps.append(torch.stack(columns))
    return torch.stack(maps)


@torch.no_grad()
def occlusion(net: Net, inputs: Tensor, truth: Truth, of_layer: str | None = None) -> Tensor:
    """(N, T, H, W): one image and one window at a time; baseline 0, windows cut at the border."""
    maps = []
    for n, image in enumerate(inputs):
        clean = read(net, image[None], of_layer)
        before = torch.stack(truth(clean, n, clean))
        total, count = torch.zeros(len(before), *SIZE, dtype=torch.float64), torch.zeros(SIZE, dtype=torch.float64)
        for top in starts(SIZE[0]):
            for left in starts(SIZE[1]):
                covered = image.clone()
                covered[:, top : top + WINDOW, left : left + WINDOW] = 0
                after = torch.stack(truth(read(net, covered[None], of_layer), n, clean))
                total[:, top : top + WINDOW, left : left + WINDOW] += (before - after)[:, None, None]
                count[top : top + WINDOW, left : left + WINDOW] += 1
        maps.append(total / count)
    return torch.stack(maps)


def starts(size: int) -> list[int]:
    found = [0]
    while found[-1] + WINDOW < size:
        found.append(found[-1] + STRIDE)
    return found
