"""Covered images that go through the model itself, so that the engine is believed only where it says the same."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attribution.attributor import Run
from attribution.precision import tf32
from attribution.run import MASK, medians
from attribution.techniques import Occlusion
from attribution.techniques.occlusion import Lattice
from attribution_hooks.occlusion.chunks import in_parts

Pair = tuple[int, int]

ROUNDINGS = {torch.float16: 32, torch.bfloat16: 8}
"""How many ``eps`` of a class's size two orders of the same sums may be apart; in ResNet-50 it is 26 and 5."""

ROUNDING = 512
"""The same in float32 and float64. On fourteen torchvision families it is at most 112 (VGG16, random weights)."""


@dataclass(frozen=True)
class Proof:
    """The model's own answers to a few of a call's covered images.

    The first image is covered at its corner and at its middle, every further image by one window, and in the end one
    image by the window that matters most. A trace misses what depends on types, state, or numbers read while tracing.
    Such a model answers differently here. Two windows of one image are needed, since the model is left in the state of
    one of them, and the engine must also be right for the other.

    Attributes:
        pairs: (window, image) of each covered image; the images ascend.
        clean: (N, K), the model's logits for the images as they are.
        covered: (pairs, K), for the covered ones.
        classes: (N, T) that the map depends on: those asked for, or all where the score is a softmax.
        allowed: (N, K), how far rounding may take a logit.
    """

    pairs: tuple[Pair, ...]
    clean: Tensor
    covered: Tensor
    classes: Tensor
    allowed: Tensor

    @classmethod
    def of(cls, run: Run, technique: Occlusion, lattice: Lattice, clean: Tensor, target: Tensor, chunk: int) -> "Proof":
        """Run the model on at most N + 1 covered images, ``chunk`` per forward."""
        pairs = chosen(lattice, len(run.inputs))
        covered = _answers(run, technique, lattice, pairs, chunk)
        every = torch.arange(clean.shape[1], device=clean.device).expand(len(clean), -1)
        dtype = tf32(clean) or clean.dtype
        unit = ROUNDINGS.get(dtype, ROUNDING) * torch.finfo(dtype).eps
        allowed = unit * sizes(clean, covered, target)
        return cls(pairs, clean, covered, target if technique.score == "logit" else every, allowed)

    def of_strongest(self, run: Run, technique: Occlusion, lattice: Lattice, deltas: Tensor) -> "Proof":
        """The same about the window that moves a score of the images most: what the map will be read for.

        Args:
            run: As before.
            technique: As before.
            lattice: As before.
            deltas: (windows, n, T) that the engine found for the first images of the call.
        """
        pair = divmod(int(deltas.abs().amax(dim=2).argmax()), deltas.shape[1])
        return replace(self, pairs=(pair,), covered=_answers(run, technique, lattice, (pair,), 1))

    def clean_agrees(self, clean: Tensor, images: slice) -> bool:
        """Whether the engine's logits (n, K) for these images as they are, are the model's."""
        own = self.clean[images]
        if clean.shape != own.shape or clean.dtype != own.dtype:
            return False
        return self._near(_difference(clean, own), torch.arange(len(self.clean), device=own.device)[images])

    def agrees(self, covered: Tensor, clean: Tensor, images: slice) -> bool:
        """Whether covering changes the engine's logits as it changes the model's.

        Args:
            covered: The engine's logits for the pairs `of` these images, in their order.
            clean: (n, K), for the images as they are.
            images: Of the call.
        """
        rows = self.rows(images)
        own = self.covered[rows[0] : rows[-1] + 1]
        if covered.shape != own.shape or covered.dtype != own.dtype:
            return False
        places = torch.tensor([self.pairs[row][1] for row in rows], device=own.device)
        found = _difference(clean[places - images.start], covered)
        return self._near(_difference(found, _difference(self.clean[places], own)), places)

    def repeats(self, technique: Occlusion, clean: Tensor, covered: Tensor, target: Tensor, deltas: Tensor) -> bool:
        """Whether windows that ran alone say what they said among the others.

        A kernel may be wrong for one shape of a batch, which no other window shows.

        Args:
            technique: How logits become scores.
            clean: (P, K), the engine's logits for the image of each pair as it is.
            covered: (P, K), for the pairs, which ran alone.
            target: (P, T) asked for.
            deltas: (P, T), the differences of scores that were found among the others.
        """
        before, after = (technique.scores(logits) for logits in (clean, covered))
        room = self.allowed[[image for _, image in self.pairs]].to(before.dtype)
        if technique.score != "logit":  # p · (δ of its own logit + the mean δ of all) is what a probability may move
            p = torch.maximum(before, after)
            room = p * (room + (p * room).sum(dim=1, keepdim=True)) + 8 * torch.finfo(p.dtype).eps
        difference = (deltas - (before - after).gather(1, target)).abs()
        return bool((difference <= 2 * room.gather(1, target)).all())

    def rows(self, images: slice) -> list[int]:
        """Which of the pairs cover these images."""
        return [row for row, (_, image) in enumerate(self.pairs) if images.start <= image < images.stop]

    def _near(self, difference: Tensor, images: Tensor) -> bool:
        """NaN never is."""
        near = difference.abs() <= self.allowed[images]
        return bool(near.gather(1, self.classes[images]).all())


def _answers(run: Run, technique: Occlusion, lattice: Lattice, pairs: Sequence[Pair], chunk: int) -> Tensor:
    """The model's own logits (pairs, K) for covered images."""
    cover, found = technique.cover(run.inputs)[0], []

    def work(part: Sequence[Pair]) -> None:
        images = run.inputs[torch.tensor([image for _, image in part], device=run.inputs.device)]
        for image, (window, _) in zip(images, part, strict=True):
            (top, bottom), (left, right) = lattice.windows[window]
            image[:, top:bottom, left:right] = cover
        found.append(run.forward(images))

    in_parts(pairs, chunk, work, lambda: None)
    return torch.cat(found)


def sizes(clean: Tensor, covered: Tensor, target: Tensor) -> Tensor:
    """By what each class's logit is rounded, (N, K): its own size, or that of the median class where it is larger.

    A logit near zero may be the sum of large parts, as the other logits show. Classes that no cover moves are left out
    of the median, and the classes asked for bound it: a class masked by −1e4 says nothing of the others.

    Args:
        clean: (N, K).
        covered: (pairs, K): several of the first image, one of each further one.
        target: (N, T) asked for.
    """
    several = len(covered) - len(clean) + 1
    largest = torch.cat([covered[:several].abs().amax(dim=0, keepdim=True), covered[several:].abs()])
    own = torch.maximum(clean.abs(), largest)
    still = torch.cat([(covered[:several] == clean[:1]).all(dim=0, keepdim=True), covered[several:] == clean[1:]])
    still &= ~still.all(dim=1, keepdim=True)  # a cover that moves nothing tells no masked class from another
    median = medians(own.masked_fill(still, torch.nan))[:, None].nan_to_num(0.0)
    bound = MASK * own.gather(1, target).amax(dim=1, keepdim=True)
    return torch.maximum(own, torch.minimum(median, bound)).nan_to_num(nan=0.0, posinf=0.0)


def chosen(lattice: Lattice, images: int) -> tuple[Pair, ...]:
    """(window, image): the corner and the middle of the first image, one window of each further one, spread evenly."""
    rows, columns = len(lattice.rows), len(lattice.columns)
    count, middle = rows * columns, rows // 2 * columns + columns // 2
    spread = [((middle + image * count * 5 // 13) % count, image) for image in range(1, images)]
    return tuple(dict.fromkeys([(0, 0), (middle, 0), *spread]))


def _difference(a: Tensor, b: Tensor) -> Tensor:
    """The first less the second; 0 where both are the same infinity."""
    return torch.where(a == b, 0, a - b)
