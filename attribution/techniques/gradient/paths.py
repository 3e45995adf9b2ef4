"""Random places on the lines from random baselines to the noisy input, of a generator of their own."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, repeat

import torch
from torch import Tensor

from attribution.inputs.inputs import Inputs
from attribution.techniques.gradient.noise import draws, generator


@dataclass(frozen=True)
class Path:
    """One sample, the same for all examples.

    Attributes:
        at: How far on the line, between 0 and 1.
        row: Which of the baselines.
        start: That baseline, by explained input, (1, …).
        end: The noisy input, (N, …).
    """

    at: float
    row: int
    start: Mapping[str, Tensor]
    end: Mapping[str, Tensor]

    def way(self) -> dict[str, Tensor]:
        """From the start to the end, (N, …)."""
        return {name: end - self.start[name] for name, end in self.end.items()}

    def place(self) -> dict[str, Tensor]:
        """On the line, (N, …)."""
        return {name: self.start[name] + self.at * way for name, way in self.way().items()}


def paths(inputs: Inputs, baselines: Mapping[str, Tensor], *, samples: int, noise: float, seed: int) -> Iterator[Path]:
    """So many samples; ``at`` and ``row`` are the same whatever the noise.

    Args:
        inputs: Of the call.
        baselines: By explained input, (B, …), or (1, …) which goes with any row.
        samples: How many.
        noise: Standard deviation as a part of each example's range.
        seed: Of all draws.
    """
    source = generator(seed)
    beside = generator(int(torch.randint(2**62, (), generator=source, device="cpu")))
    still: Mapping[str, Tensor] = {}
    noisy = draws(inputs, samples=samples, part=noise, source=beside) if noise else repeat(still)
    rows = max(map(len, baselines.values()))

    def sample(added: Mapping[str, Tensor]) -> Path:
        at = float(torch.rand((), generator=source, dtype=torch.float64, device="cpu"))
        row = int(torch.randint(rows, (), generator=source, device="cpu"))
        start = {name: each[row % len(each)][None] for name, each in baselines.items()}
        end = {name: inputs.values[name] + added[name] if added else inputs.values[name] for name in baselines}
        return Path(at, row, start, end)

    return map(sample, islice(noisy, samples))
