"""Infidelity and max-sensitivity by ``captum.metrics``."""

from collections.abc import Callable

import captum.metrics
import torch
from torch import Tensor

Rows = Callable[[Tensor, Tensor], Tensor]
"""(R, …) inputs and (R,) photos → a row for each."""


def infidelity(change: Rows, x: Tensor, map_: Tensor, noise: Tensor, *, normalise: bool, at_once: int) -> Tensor:
    """(N,), by ``captum.metrics.infidelity``, which draws nothing itself: the noise is that of the question."""
    samples, drawn = len(noise), _by_photo(noise)

    def perturbed(shown: Tensor) -> tuple[Tensor, Tensor]:
        return drawn, shown - drawn

    def scored(shown: Tensor, examples: Tensor) -> Tensor:
        return torch.cat([change(*part) for part in zip(shown.split(at_once), examples.split(at_once), strict=True)])

    found: Tensor = captum.metrics.infidelity(
        scored,
        perturbed,
        x,
        map_.contiguous(),
        additional_forward_args=(torch.arange(len(x), device=x.device),),
        n_perturb_samples=samples,
        normalize=normalise,
    )
    return found


def max_sensitivity(explanation: Rows, x: Tensor, noise: Tensor) -> Tensor:
    """(N,), by ``captum.metrics.sensitivity_max`` with the noise of the question."""
    drawn = _by_photo(noise)

    def explained(shown: Tensor | tuple[Tensor, ...]) -> tuple[Tensor]:
        rows = shown if isinstance(shown, Tensor) else shown[0]
        photos = torch.arange(len(x), device=x.device).repeat_interleave(len(rows) // len(x))
        return (explanation(rows, photos),)

    found: Tensor = captum.metrics.sensitivity_max(
        explained, x, lambda shown: shown + drawn, n_perturb_samples=len(noise)
    )
    return found


def _by_photo(noise: Tensor) -> Tensor:
    """(samples, N, …) → (N · samples, …), a photo's samples one after the other, as Captum repeats photos."""
    return noise.transpose(0, 1).flatten(0, 1)
