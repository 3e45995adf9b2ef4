"""``HooksRISE``: masks in blocks, every target from the same forwards, sums by one product for each block."""

from collections.abc import Callable, Sequence
from math import prod
from typing import ClassVar

import torch
from torch import Tensor

from attribution.attributor import Attributor, Run
from attribution.lowered.forwards import Forward, forwarding
from attribution.running.precision import exact
from attribution.technique import Maps
from attribution.techniques import RISE
from attribution.techniques.perturbation.family import places_of
from attribution_hooks.chunks import in_parts, rows_at_once
from attribution_hooks.covers import beside
from attribution_hooks.perturbation.clean import clean
from attribution_hooks.perturbation.fold import AT_ONCE
from attribution_hooks.perturbation.masks import Masks

BLOCK = 64
"""Masks that are there at once. Sums are taken block by block, and do not depend on what goes into a forward."""


class HooksRISE(Attributor[RISE]):
    """`RISE`: what is held is bits, offsets, one block of masks, and two sums for each map."""

    technique_type: ClassVar[type[RISE]] = RISE
    backend: ClassVar[str] = "hooks"

    def compute(self, run: Run[RISE]) -> Maps:
        """(N, T, *places) of each masked input."""
        with torch.no_grad():
            chunk = min(rows_at_once(run, run.technique.masks * len(run.inputs)), BLOCK * len(run.inputs))
            matrix = clean(run, chunk)
            names, maps = run.technique.covered(run.inputs), {}
            for name in names:

                def estimated(forward: Forward, name: str = name, chunk: int = chunk) -> tuple[_Estimate, int]:
                    estimate = _Estimate(run, name, forward)
                    return estimate, estimate.run(chunk)

                rows = run.technique.masks * len(run.inputs)
                estimate, chunk = forwarding(run, matrix, rows, estimated)
                key = "" if len(names) == 1 else f" {run.inputs.key(name)}"
                maps[run.inputs.key(name)], error = estimate.told()
                run.extras |= {f"standard_error{key}": error, f"masks{key}": estimate.count}
            run.note("masks_per_forward", chunk)
        return maps


class _Estimate:
    """The sums so far of one input: of S · M, and of its square.

    Attributes:
        count: (N,), masks that each example was shown under.
    """

    def __init__(self, run: Run[RISE], name: str, forward: Forward) -> None:
        self._run, self._name, self._forward, self._x = run, name, forward, run.inputs.values[name]
        self._places = places_of(self._x)
        self._masks = Masks(run.technique.drawn_masks(self._places), self._x)
        self._cover = run.technique.cover(self._x, name)
        shape = (len(self._x), run.settled[1].shape[1], prod(self._places))
        wide = torch.promote_types(self._x.dtype, torch.float32)
        self._sums = [torch.zeros(shape, dtype=wide, device=self._x.device) for _ in range(2)]
        self.count = torch.zeros(len(self._x), dtype=torch.int64, device=self._x.device)

    def run(self, chunk: int) -> int:
        """All masks, or as many as the wished error needs; returns how many rows went into a forward in the end."""
        technique, live = self._run.technique, torch.arange(len(self._x), device=self._x.device)
        with self._run.progress(technique.masks * len(live), "mask") as advance:
            for first in range(0, technique.masks, BLOCK):
                masks = self._masks.made(slice(first, first + BLOCK))
                scores, chunk = self._scores(masks, live, chunk, advance)
                self._add(masks.flatten(1), scores, live)
                self.count[live] += len(masks)
                if technique.error is not None:
                    live = live[~self._near(live, technique.error)]
                    if not len(live):
                        break
        return chunk

    def _scores(self, masks: Tensor, live: Tensor, chunk: int, advance: Callable[[], None]) -> tuple[Tensor, int]:
        """(masks, examples, T), and the rows per forward that fitted."""
        run, found = self._run, list[Tensor]()
        rows = torch.arange(len(masks) * len(live), device=live.device)

        def work(part: Sequence[int]) -> None:
            some = rows[part[0] : part[-1] + 1]
            examples = live[some % len(live)]
            mask = masks[some.div(len(live), rounding_mode="floor")]
            mask = mask if self._x.ndim == 2 else mask[:, None]
            cover = self._cover if len(self._cover) == 1 else self._cover[examples]
            shown = cover + (self._x[examples] - cover) * mask
            found.append(self._forward(beside(run, self._name, shown, examples), examples))

        chunk = in_parts(range(len(rows)), chunk, work, advance)
        return torch.cat(found).view(len(masks), len(live), -1), chunk

    def _add(self, masks: Tensor, scores: Tensor, live: Tensor) -> None:
        """Products are added where they are made, in the dtype of the sums where that is exact; else in float64."""
        own = self._sums[0].dtype
        wide = own if exact(masks.device) or masks.device.type == "mps" else torch.float64
        weights, targets = scores.to(masks.device, wide).flatten(1).T, scores.shape[2]
        step, every = max(1, AT_ONCE // masks.shape[1]), len(live) == len(self._x)
        rows = (live[:, None] * targets + torch.arange(targets, device=live.device)).flatten()
        for power, sums in enumerate(self._sums, start=1):
            scaled, flat = (masks.to(wide) / self._run.technique.keep) ** power, sums.flatten(0, 1)
            for first in range(0, len(rows), step):
                part = slice(first, first + step)
                some, factors = flat[part] if every else flat[rows[part]], weights[part] ** power
                some = some.addmm_(factors, scaled) if wide == own else some.add_(factors @ scaled)
                if not every:  # it is a copy
                    flat[rows[part]] = some

    def _near(self, live: Tensor, error: float) -> Tensor:
        """Of each example whether every map's standard error is small enough."""
        sums, squares = self._sums
        mean, deviation = _moments(sums[live], squares[live], self.count[live])
        return (deviation.amax(2) <= error * mean.abs().amax(2)).all(1)

    def told(self) -> tuple[Tensor, Tensor]:
        """(N, T, *places): the map, and its standard error, in the memory of the sums, which are gone."""
        sums, squares = self._sums
        mean, deviation = _moments(sums, squares, self.count)
        return mean.view(*mean.shape[:2], *self._places), deviation.view(*mean.shape[:2], *self._places)


def _moments(sums: Tensor, squares: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """From sums (n, T, places) over so many masks (n,) the means and their standard errors, in their memory."""
    count = count[:, None, None]
    mean = sums.div_(count)
    variance = squares.div_(count).addcmul_(mean, mean, value=-1).clamp_(min=0).div_((count - 1).clamp(min=1))
    return mean, variance.sqrt_()
