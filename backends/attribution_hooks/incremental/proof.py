"""Covered images that go through the model itself, so that the engine is believed only where it says the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attribution.attributor import Run
from attribution.lowered.rounding import allowed
from attribution.running.upload import upload
from attribution.scores.score import Score
from attribution.techniques.perturbation.lattice import Lattice
from attribution_hooks.chunks import in_parts
from attribution_hooks.covers import Covering

Pair = tuple[int, int]


@dataclass(frozen=True)
class Proof:
    """The model's own answers to a few of a call's covered images.

    The first image is covered at its corner and at its middle, every further image by one window, and in the end one
    image by the window that matters most. A trace misses what depends on types, state, or numbers read while tracing.
    Such a model answers differently here. Two windows of one image are needed, since the model is left in the state of
    one of them, and the engine must also be right for the other.

    What is held against these answers is what the engine says of these windows among all others. Each check is a
    tensor that holds one bool, so that all of them are read at once, and a device is waited for once.

    Attributes:
        score: What is explained.
        pairs: (window, image) of each covered image; the images ascend.
        clean: (N, K), the model's logits for the images as they are.
        covered: (pairs, K), for the covered ones.
        classes: (N, T) that the map depends on: those asked for, or all where the score mixes them, as a softmax does.
        allowed: (N, K), how far rounding may take a logit.
    """

    score: Score
    pairs: tuple[Pair, ...]
    clean: Tensor
    covered: Tensor
    classes: Tensor
    allowed: Tensor

    @classmethod
    def of(cls, run: Run[Any], lattice: Lattice, covers: Covering, clean: Tensor, chunk: int) -> "Proof":
        """Run the model on at most N + 1 covered images, ``chunk`` per forward."""
        score, target = run.settled
        pairs = chosen(lattice, len(run.inputs))
        windows, images = upload(np.array(pairs).T, clean.device)
        found: list[Tensor] = []

        def work(part: Sequence[int]) -> None:
            rows = slice(part[0], part[-1] + 1)
            found.append(run.matrix(run.forward(covers.of(windows[rows], images[rows]), images[rows]), images[rows]))

        in_parts(range(len(pairs)), chunk, work, lambda: None)
        covered = torch.cat(found)
        every = torch.arange(clean.shape[1], device=clean.device).expand(len(clean), -1)
        return cls(score, pairs, clean, covered, every if score.mixes else target, allowed(run, clean, covered))

    def clean_agrees(self, clean: Tensor, images: slice) -> Tensor:
        """Whether the engine's logits (n, K) for these images as they are, are the model's."""
        own = self.clean[images]
        if clean.shape != own.shape or clean.dtype != own.dtype:
            return _no(own)
        return self._near(_difference(clean, own), torch.arange(len(self.clean), device=own.device)[images])

    def agrees(self, covered: Tensor, own: Tensor, clean: Tensor, places: Tensor, images: slice) -> Tensor:
        """Whether covering changes the engine's logits as it changes the model's.

        Args:
            covered: (P, K), the engine's logits for covered images.
            own: (P, K), the model's.
            clean: (n, K), the engine's for the images as they are.
            places: (P,), which image of the call each shows.
            images: Those of ``clean``.
        """
        if covered.shape != own.shape or covered.dtype != own.dtype:
            return _no(own)
        found = _difference(clean[places - images.start], covered)
        return self._near(_difference(found, _difference(self.clean[places], own)), places)

    def told(self, own: Tensor, places: Tensor, target: Tensor, deltas: Tensor) -> Tensor:
        """Whether the map is made of the differences that the model's own logits give.

        Args:
            own: (P, K), the model's logits for covered images.
            places: (P,), which image of the call each shows.
            target: (P, T) asked for.
            deltas: (P, T), the differences of scores for the map.
        """
        before, after = (self.score.score_of(logits) for logits in (self.clean[places], own))
        room = self.score.room(self.allowed[places], before, after)
        difference = (deltas - (before - after).gather(1, target)).abs()
        return (difference <= 3 * room.gather(1, target)).all()  # clean logits may be off once, covered ones twice

    def images(self, rows: Sequence[int]) -> Tensor:
        """(rows,), which image each of the pairs covers."""
        return upload(np.array([self.pairs[row][1] for row in rows]), self.clean.device)

    def rows(self, images: slice) -> list[int]:
        """Which of the pairs cover these images."""
        return [row for row, (_, image) in enumerate(self.pairs) if images.start <= image < images.stop]

    def _near(self, difference: Tensor, images: Tensor) -> Tensor:
        """NaN never is."""
        near = difference.abs() <= self.allowed[images]
        return near.gather(1, self.classes[images]).all()


def _no(beside: Tensor) -> Tensor:
    return torch.zeros((), dtype=torch.bool, device=beside.device)


def chosen(lattice: Lattice, images: int) -> tuple[Pair, ...]:
    """(window, image): the corner and the middle of the first image, one window of each further one, spread evenly."""
    rows, columns, count = len(lattice.rows), len(lattice.columns), len(lattice)
    middle = rows // 2 * columns + columns // 2 if lattice.kept is None else count // 2
    spread = [((middle + image * count * 5 // 13) % count, image) for image in range(1, images)]
    return tuple(dict.fromkeys([(0, 0), (middle, 0), *spread]))


def _difference(a: Tensor, b: Tensor) -> Tensor:
    """The first less the second; 0 where both are the same infinity."""
    return torch.where(a == b, 0, a - b)
