"""What is optimised, and the image it stands for."""

from dataclasses import dataclass
from functools import cached_property, reduce
from typing import ClassVar, Protocol

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

    floor: ClassVar[float]
    """Adam's ε, in parts of the first gradient."""

    def shape(self, image: tuple[int, ...]) -> tuple[int, ...]:
        """Of the parameters of one image (C, *places)."""

    def decode(self, parameters: Tensor) -> Tensor:
        """(B, …) → images (B, C, *places) in model-input units; differentiable."""

    def encode(self, images: Tensor) -> Tensor:
        """The parameters of images: ``decode(encode(images))`` equals ``images``."""


@dataclass(frozen=True)
class _Coloured:
    """Three channels of images and volumes, mixed from decorrelated ones by M where ``decorrelated``."""

    spread: float
    decorrelated: bool
    dtype: torch.dtype = torch.float32
    device: torch.device | None = None

    def _mixed(self, flat: Tensor) -> Tensor:
        return _mixed(flat, self._mixing) if self.decorrelated else flat

    def _unmixed(self, images: Tensor) -> Tensor:
        return _mixed(images, self._unmixing) if self.decorrelated else images

    @cached_property
    def _mixing(self) -> Tensor:
        """(3, 3): from decorrelated to model channels. The axes are the same for RGB and BGR."""
        return upload(_colours(), self.device, self.dtype)

    @cached_property
    def _unmixing(self) -> Tensor:
        """Its inverse, taken on the host: a device would be asked whether there is one."""
        return upload(_colours().to(self.dtype).inverse(), self.device)


@dataclass(frozen=True)
class Pixels(_Coloured):
    """image = spread · M · parameters, with M as in `Fourier`, or none."""

    floor: ClassVar[float] = 0.1  # a pixel shows as it is what rounding makes of a gradient near zero

    def shape(self, image: tuple[int, ...]) -> tuple[int, ...]:
        """That of the image."""
        return image

    def decode(self, parameters: Tensor) -> Tensor:
        """Scaled."""
        return self._mixed(parameters) * self.spread

    def encode(self, images: Tensor) -> Tensor:
        """Scaled back."""
        return self._unmixed(images / self.spread)


@dataclass(frozen=True, kw_only=True)
class Fourier(_Coloured):
    """image = spread · L · tanh(M · irfft(s · parameters) / L), with L = `LIMIT`, over all axes of places.

    s falls as 1 / frequency, as the spectrum of photos does; M mixes decorrelated colours (three channels of images and
    volumes only) with the standard deviations of photos. Both are scaled so that standard normal parameters give pixels
    of unit variance. Parameters: (C, …, W // 2 + 1, 2), real and imaginary part.
    """

    size: tuple[int, ...]
    floor: ClassVar[float] = 1e-3  # a coefficient spreads it over all pixels

    def shape(self, image: tuple[int, ...]) -> tuple[int, ...]:
        """(C, …, W // 2 + 1, 2)."""
        return (*image[:-1], image[-1] // 2 + 1, 2)

    def decode(self, parameters: Tensor) -> Tensor:
        """From spectrum to image."""
        spectrum = torch.view_as_complex(parameters * self._scale[..., None])
        flat = torch.fft.irfftn(spectrum, s=self.size, dim=self._places, norm="ortho")
        return self.spread * LIMIT * torch.tanh(self._mixed(flat) / LIMIT)

    def encode(self, images: Tensor) -> Tensor:
        """From image to spectrum; values beyond the limit are cut to it."""
        most = 1 - 1e-6
        mixed = LIMIT * torch.atanh((images / (self.spread * LIMIT)).clamp(-most, most))
        spectrum = torch.fft.rfftn(self._unmixed(mixed), dim=self._places, norm="ortho")
        return torch.view_as_real(spectrum) / self._scale[..., None]

    @property
    def _places(self) -> tuple[int, ...]:
        return tuple(range(-len(self.size), 0))

    @cached_property
    def _scale(self) -> Tensor:
        *outer, width = self.size
        along = [torch.fft.fftfreq(size, dtype=torch.float64, device="cpu") for size in outer]
        every, half = (
            1 / _distance([*along, columns(width, dtype=torch.float64, device="cpu")]).clamp(min=1 / max(self.size))
            for columns in (torch.fft.fftfreq, torch.fft.rfftfreq)
        )
        return upload(half / (2 * every.square().mean()).sqrt(), self.device, self.dtype)


def _distance(along: list[Tensor]) -> Tensor:
    """Of every frequency from zero, from those along each axis."""
    axes = [each.reshape(-1, *[1] * (len(along) - 1 - axis)) for axis, each in enumerate(along)]
    return reduce(torch.hypot, axes) if len(axes) > 1 else axes[0].abs()


def _colours() -> Tensor:
    """(3, 3) on the host, in float64."""
    axes, std = (torch.tensor(values, dtype=torch.float64, device="cpu") for values in (_COLOUR_AXES, _COLOUR_STD))
    mixing: Tensor = (axes / axes.norm(dim=1, keepdim=True)).T * (std / std.square().mean().sqrt())
    return mixing


def _mixed(images: Tensor, mixing: Tensor) -> Tensor:
    if images.shape[1] != len(mixing) or images.ndim < 4:
        return images
    mixed: Tensor = torch.einsum("dc,bchw->bdhw" if images.ndim == 4 else "dc,bc...->bd...", mixing, images)
    return mixed
