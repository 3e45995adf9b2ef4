"""What is optimised, and the image it stands for."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from attribution.running.upload import upload

LIMIT = 2.5
"""Fourier images stay within ± this many spreads, as photos stay within black and white."""

# Standard deviations of photos along grey, red against blue, green against both: Ohta's axes, all but decorrelated.
_COLOUR_STD = (1.0, 0.28, 0.13)
_COLOUR_AXES = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (-1.0, 2.0, -1.0))


class Parametrization(Protocol):
    """From parameters to images and back; image by image, so that neighbours do not matter."""

    def shape(self, image: tuple[int, int, int]) -> tuple[int, ...]:
        """Of the parameters of one image (C, H, W)."""

    def decode(self, parameters: Tensor) -> Tensor:
        """(B, …) → images (B, C, H, W) in model-input units; differentiable."""

    def encode(self, images: Tensor) -> Tensor:
        """The parameters of images: ``decode(encode(images))`` equals ``images``."""


@dataclass(frozen=True)
class Pixels:
    """image = spread · parameters."""

    spread: float

    def shape(self, image: tuple[int, int, int]) -> tuple[int, ...]:
        """That of the image."""
        return image

    def decode(self, parameters: Tensor) -> Tensor:
        """Scaled."""
        return parameters * self.spread

    def encode(self, images: Tensor) -> Tensor:
        """Scaled back."""
        return images / self.spread


@dataclass(frozen=True)
class Fourier:
    """image = spread · L · tanh(M · irfft2(s · parameters) / L), with L = `LIMIT`.

    s falls as 1 / frequency, as the spectrum of photos does; M mixes decorrelated colours (three channels only) with
    the standard deviations of photos. Both are scaled so that standard normal parameters give pixels of unit variance.
    Parameters: (C, H, W // 2 + 1, 2), real and imaginary part.
    """

    size: tuple[int, int]
    spread: float
    dtype: torch.dtype = torch.float32
    device: torch.device | None = None

    def shape(self, image: tuple[int, int, int]) -> tuple[int, ...]:
        """(C, H, W // 2 + 1, 2)."""
        return (image[0], image[1], image[2] // 2 + 1, 2)

    def decode(self, parameters: Tensor) -> Tensor:
        """From spectrum to image."""
        spectrum = torch.view_as_complex(parameters * self._scale[..., None])
        flat = torch.fft.irfft2(spectrum, s=self.size, norm="ortho")
        return self.spread * LIMIT * torch.tanh(_mixed(flat, self._mixing) / LIMIT)

    def encode(self, images: Tensor) -> Tensor:
        """From image to spectrum; values beyond the limit are cut to it."""
        most = 1 - 1e-6
        mixed = LIMIT * torch.atanh((images / (self.spread * LIMIT)).clamp(-most, most))
        spectrum = torch.fft.rfft2(_mixed(mixed, self._unmixing), norm="ortho")
        return torch.view_as_real(spectrum) / self._scale[..., None]

    @cached_property
    def _scale(self) -> Tensor:
        height, width = self.size
        rows = torch.fft.fftfreq(height, dtype=torch.float64, device="cpu")[:, None]
        every, half = (
            1 / torch.hypot(rows, columns(width, dtype=torch.float64, device="cpu")).clamp(min=1 / max(self.size))
            for columns in (torch.fft.fftfreq, torch.fft.rfftfreq)
        )
        return upload(half / (2 * every.square().mean()).sqrt(), self.device, self.dtype)

    @cached_property
    def _mixing(self) -> Tensor:
        """(3, 3): from decorrelated to model channels. The axes are the same for RGB and BGR."""
        return upload(_colours(), self.device, self.dtype)

    @cached_property
    def _unmixing(self) -> Tensor:
        """Its inverse, taken on the host: a device would be asked whether there is one."""
        return upload(_colours().to(self.dtype).inverse(), self.device)


def _colours() -> Tensor:
    """(3, 3) on the host, in float64."""
    axes, std = (torch.tensor(values, dtype=torch.float64, device="cpu") for values in (_COLOUR_AXES, _COLOUR_STD))
    mixing: Tensor = (axes / axes.norm(dim=1, keepdim=True)).T * (std / std.square().mean().sqrt())
    return mixing


def _mixed(images: Tensor, mixing: Tensor) -> Tensor:
    if images.shape[1] != len(mixing):
        return images
    mixed: Tensor = torch.einsum("dc,bchw->bdhw", mixing, images)
    return mixed
