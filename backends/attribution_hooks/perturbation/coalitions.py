"""Scores of inputs of which some segments are there, and the baseline stands for the others."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from attribution.attributor import Run
from attribution.lowered.forwards import Forward
from attribution_hooks.chunks import in_parts
from attribution_hooks.covers import beside


class Coalitions:
    """Shows examples with some of their segments.

    Args:
        run: Its score is settled.
        name: The input that is covered.
        labels: (1 or N, *places), the number of each place's segment.
        examples: (n,), those that are shown, all of as many segments.
        chunk: Rows per forward.
        forward: Of the run.

    Attributes:
        count: Segments.
        chunk: Rows per forward, which is halved where memory runs out.
    """

    def __init__(
        self, run: Run[Any], name: str, labels: Tensor, examples: Tensor, chunk: int, forward: Forward
    ) -> None:
        self._run, self._name, self._labels, self._examples = run, name, labels, examples
        self._x, self._forward = run.inputs.values[name], forward
        self._cover = run.technique.cover(self._x, name)
        self.count, self.chunk = int(labels[examples % len(labels)].max()) + 1, chunk

    def values(self, kept: Tensor, advance: Callable[[], None]) -> Tensor:
        """(R, n, T) in float64: the scores of the examples with each of the coalitions (R, segments)."""
        run, count = self._run, len(self._examples)
        every = torch.arange(len(kept) * count, device=self._x.device)
        kept, found = kept.to(self._x.device), list[Tensor]()

        def work(part: Sequence[int]) -> None:
            rows = every[part[0] : part[-1] + 1]
            examples = self._examples[rows % count]
            labels = self._labels if len(self._labels) == 1 else self._labels[examples]
            own = kept[rows.div(count, rounding_mode="floor")]
            there = own.gather(1, labels.flatten(1).expand(len(own), -1)).view(len(own), *labels.shape[1:])
            there = there if self._x.ndim == there.ndim else there[:, None]
            cover = self._cover if len(self._cover) == 1 else self._cover[examples]
            shown = torch.where(there, self._x[examples], cover)
            found.append(self._forward(beside(run, self._name, shown, examples), examples))

        self.chunk = in_parts(range(len(every)), self.chunk, work, advance)
        wide = torch.float32 if self._x.device.type == "mps" else torch.float64
        return torch.cat(found).to(wide).view(len(kept), count, -1)
