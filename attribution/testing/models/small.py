"""Small models with the traps that attribution libraries fall into, each with layers ``stem``, ``body``, ``head``."""

from collections import OrderedDict

import torch
from torch import Tensor, nn


class _Residual(nn.Module):
    """``out += identity`` changes the output of the layer before in place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(x))
        out += x
        return out


def _model(stem: nn.Module, body: nn.Module, features: int, classes: int) -> nn.Module:
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, classes))
    return nn.Sequential(
        OrderedDict(
            stem=stem,
            stem_relu=nn.ReLU(inplace=True),
            pool=nn.MaxPool2d(2),
            body=body,
            body_relu=nn.ReLU(inplace=True),
            head=head,
        )
    )


def small_cnn(*, classes: int = 5, seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Two convolutions, each followed by a ReLU in place."""
    return calibrated(lambda: _model(nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3), 8, classes), seed, dtype)


def small_residual(*, classes: int = 5, seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A residual block whose sum is formed in place, as in torchvision's ResNets; batch norm throughout."""
    stem = lambda: nn.Sequential(nn.Conv2d(3, 6, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(6))  # noqa: E731  # a thunk
    return calibrated(lambda: _model(stem(), _Residual(6), 6, classes), seed, dtype)


def small_depthwise(*, classes: int = 5, seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A depthwise and a pointwise convolution with ReLU6, as in MobileNets."""

    def body() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU6(inplace=True),
            nn.Conv2d(8, 6, 1),
            nn.BatchNorm2d(6),
        )

    return calibrated(lambda: _model(nn.Conv2d(3, 8, 3, stride=2), body(), 6, classes), seed, dtype)


def calibrated(build: object, seed: int, dtype: torch.dtype, *, size: tuple[int, int] = (32, 32)) -> nn.Module:
    """A model from a builder: weights from ``seed``, batch norm statistics from noise, eval mode; global RNG untouched.

    It is made on the host, so that it is the same wherever it goes. ``size`` is that of the images it takes.

    Without the calibration the signal of a deep random net vanishes, and maps of 1e-9 agree about nothing.
    """
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        model: nn.Module = build()  # type: ignore[operator]
        norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.momentum = None
        with torch.no_grad():
            model.train()(torch.randn(16, 3, *size))
    return model.eval().to(dtype)
