"""Noise that is added to inputs: of its own generator, whatever the batch, the chunk, the dtype and the device."""

from collections.abc import Iterator

import torch
from torch import Tensor

from attribution.inputs.inputs import Inputs
from attribution.running.upload import upload


def generator(seed: int) -> torch.Generator:
    """A new one, on the host."""
    return torch.Generator("cpu").manual_seed(seed)


def draws(inputs: Inputs, *, samples: int, part: float, source: torch.Generator) -> Iterator[dict[str, Tensor]]:
    """Of each sample, by explained input, what is added: ``part`` · (max x − min x) of each example, times z.

    z is standard normal, of the shape of one example, drawn on the host in float64, one explained input after the
    other, when the sample is asked for. It is the same for all examples.
    """
    explained = inputs.explained
    flat = {name: inputs.values[name].flatten(1) for name in explained}
    sizes = {name: part * (x.amax(dim=1) - x.amin(dim=1)) for name, x in flat.items()}

    def sample(_: int) -> dict[str, Tensor]:
        found = {}
        for name in explained:
            x, size = inputs.values[name], sizes[name]
            z = torch.randn(x.shape[1:], generator=source, dtype=torch.float64, device="cpu")
            found[name] = size.reshape(-1, *[1] * (x.ndim - 1)) * upload(z, x.device, x.dtype)
        return found

    return map(sample, range(samples))
